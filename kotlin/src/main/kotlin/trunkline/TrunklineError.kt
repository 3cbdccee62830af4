package trunkline

/** A problem that the user can mend: what was given, what was expected, and what to do next. */
class TrunklineError(val given: String, val expected: String = "", val todo: String = "") : RuntimeException(
    listOf(sentence(given), if (expected == "") "" else "Expected " + sentence(expected), sentence(todo))
        .filter { it != "" }.joinToString(" ")
)

private fun sentence(text: String): String = if (text == "" || text.endsWith(".")) text else "$text."
