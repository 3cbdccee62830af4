package trunkline

/** Start and end (exclusive) of a word or unit, in code points. */
data class Border(val start: Int, val end: Int)

/** A text with its code points, and where each of them (and the end) stands in UTF-16, in which the JVM counts. */
class Text(val text: String) {
    val codes: IntArray = text.codePoints().toArray()
    val places: IntArray = IntArray(codes.size + 1)
    val words: List<Border> by lazy { Words.split(codes) }

    init {
        codes.forEachIndexed { number, code -> places[number + 1] = places[number] + Character.charCount(code) }
    }

    fun slice(start: Int, end: Int): String = text.substring(places[start], places[end])
}

/** Words of a raw text, by the same table and rule as in Python and in the npm package. */
internal object Words {
    private val table = Node(Json.read(resource("words.json"), "words.json"), "words.json")
    private val pattern = Regex(table["pattern"].text())
    private val classes = CharArray(0x110000) { 's' }.also { classes ->
        for ((name, borders) in table["classes"].entries()) {
            ranges(borders) { code -> classes[code] = name[0] }
        }
    }

    fun split(codes: IntArray): List<Border> {
        val kinds = String(CharArray(codes.size) { classes[codes[it]] })
        return pattern.findAll(kinds).map { Border(it.range.first, it.range.last + 1) }.toList()
    }

    /** Whether the character belongs to the one before it. */
    fun extending(code: Int): Boolean = classes[code] == 'm' || classes[code] == 'j'
}

/** A table that is packed beside the classes. */
internal fun resource(name: String): String {
    val stream = Text::class.java.getResourceAsStream("/trunkline/$name") ?: throw TrunklineError(
        "the table $name is not in the package", "/trunkline/$name among its resources", "Build it with its resources"
    )
    return stream.use { String(it.readBytes(), Charsets.UTF_8) }
}

/** Calls for each code point of ranges that are given as first, last, first, last and so on. */
internal fun ranges(borders: Node, found: (Int) -> Unit) {
    val numbers = borders.list().map { it.size() }
    for (n in numbers.indices step 2) for (code in numbers[n]..numbers[n + 1]) found(code)
}
