package trunkline

/** JSON as maps, lists, strings, Long or Double, Boolean and null; a small reader, as the JVM has none. */
internal class Json private constructor(private val text: String) {
    private var place = 0

    private fun value(depth: Int): Any? {
        if (depth > DEEPEST) fail("more than $DEEPEST levels")
        blanks()
        return when (val sign = peek()) {
            '{' -> members(depth)
            '[' -> items(depth)
            '"' -> string()
            else -> if (sign == '-' || sign in '0'..'9') number() else word()
        }
    }

    private fun members(depth: Int): Map<String, Any?> {
        val found = LinkedHashMap<String, Any?>()
        place++
        blanks()
        if (taken('}')) return found
        do {
            blanks()
            val name = string()
            blanks()
            wanted(':')
            if (found.containsKey(name)) fail("the key '${name.take(40)}' stands there twice")
            found[name] = value(depth + 1)
            blanks()
        } while (taken(','))
        wanted('}')
        return found
    }

    private fun items(depth: Int): List<Any?> {
        val found = ArrayList<Any?>()
        place++
        blanks()
        if (taken(']')) return found
        do {
            found.add(value(depth + 1))
            blanks()
        } while (taken(','))
        wanted(']')
        return found
    }

    private fun string(): String {
        wanted('"')
        val found = StringBuilder()
        while (true) {
            val sign = next()
            if (sign == '"') return found.toString()
            if (sign < ' ') fail("a control character in a string")
            found.append(if (sign == '\\') escaped() else sign)
        }
    }

    private fun escaped(): Char = when (val sign = next()) {
        'b' -> '\b'
        'f' -> '\u000c'
        'n' -> '\n'
        'r' -> '\r'
        't' -> '\t'
        'u' -> {
            val digits = (1..4).map { next() }.joinToString("")
            (digits.toIntOrNull(16) ?: fail("\\u$digits")).toChar()
        }
        '"', '\\', '/' -> sign
        else -> fail("\\$sign")
    }

    private fun number(): Any {
        val match = NUMBER.find(text, place)
        if (match == null || match.range.first != place) fail("no number")
        place = match.range.last + 1
        return match.value.toLongOrNull() ?: match.value.toDouble()
    }

    private fun word(): Any? {
        for ((word, value) in listOf("true" to true, "false" to false, "null" to null)) {
            if (text.startsWith(word, place)) {
                place += word.length
                return value
            }
        }
        fail("no value")
    }

    private fun blanks() {
        while (place < text.length && text[place] in " \t\r\n") place++
    }

    private fun peek(): Char = if (place < text.length) text[place] else fail("it ends too early")

    private fun next(): Char = peek().also { place++ }

    private fun taken(sign: Char): Boolean = (peek() == sign).also { if (it) place++ }

    private fun wanted(sign: Char) {
        if (next() != sign) fail("'$sign' is missing")
    }

    private fun fail(what: String): Nothing = throw IllegalArgumentException("$what at character $place")

    companion object {
        private const val DEEPEST = 100
        private val NUMBER = Regex("-?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][+-]?[0-9]+)?")

        /** Reads a whole JSON text; `where` names it in errors. */
        fun read(text: String, where: String): Any? {
            try {
                val reader = Json(text)
                val found = reader.value(0)
                reader.blanks()
                if (reader.place < text.length) reader.fail("more than one value")
                return found
            } catch (error: IllegalArgumentException) {
                throw TrunklineError("$where is no JSON (${error.message})", "the file as it was written", "Fetch it again")
            }
        }
    }
}

/** A value of JSON with where it stands, so that errors can name it. */
internal class Node(val value: Any?, private val where: String) {
    operator fun get(key: String): Node = Node((value as? Map<*, *> ?: refuse("an object"))[key], "$where.$key")

    val isThere: Boolean get() = value != null

    fun text(): String = value as? String ?: refuse("a text")

    fun flag(): Boolean = value as? Boolean ?: refuse("true or false")

    /** A whole number from 0. */
    fun size(): Int {
        val number = value as? Long ?: refuse("a whole number")
        if (number < 0 || number > Int.MAX_VALUE) refuse("a whole number from 0")
        return number.toInt()
    }

    fun number(): Double = (value as? Number ?: refuse("a number")).toDouble()

    fun list(): List<Node> =
        (value as? List<*> ?: refuse("a list")).mapIndexed { number, item -> Node(item, "$where[$number]") }

    fun entries(): Map<String, Node> =
        (value as? Map<*, *> ?: refuse("an object")).entries.associate { (key, item) -> key as String to Node(item, "$where.$key") }

    fun refuse(expected: String): Nothing =
        throw TrunklineError("$where is ${value.toString().take(60)}", expected, "Make or fetch the file again")
}
