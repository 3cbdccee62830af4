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

    /** What `shapes` says of a unit and its two neighbours. */
    const val SHAPES = 60

    private const val SHAPE = SHAPES / 3
    private val signs = listOf(".,;:!?", "-\u2013/", "()[]\"'")
    private val upper = BooleanArray(0x110000).also { upper -> ranges(table["upper"]) { code -> upper[code] = true } }

    /**
     * For each unit the numbers of what a lower-cased vocabulary hides of it and its neighbours, 0 until `SHAPES`.
     *
     * As `trunkline.text.words.unit_shapes`: of the unit, then of the one before it, then of the one behind it.
     */
    fun shapes(codes: IntArray, units: List<Border>): List<List<Int>> {
        val own = units.indices.map { shape(codes, units, it) }
        return own.indices.map { n ->
            own[n] + (own.getOrNull(n - 1) ?: listOf()).map { it + SHAPE } + (own.getOrNull(n + 1) ?: listOf()).map { it + 2 * SHAPE }
        }
    }

    private fun shape(codes: IntArray, units: List<Border>, n: Int): List<Int> {
        val (start, end) = units[n]
        val unit = start until end
        val large = unit.count { upper[codes[it]] }
        val size = unit.count { !extending(codes[it]) }
        val title = upper[codes[start]] && large == 1
        val letters = classes[codes[start]] == 'l' || classes[codes[start]] == 'u'
        val digits = classes[codes[start]] == 'd'
        val said = listOf(title && size != 1, large == size && size != 1, title && size == 1) +
            listOf(large in 1 until size && !title, letters && large == 0) +
            listOf(1, 2, 4).map { digits && size == it } + (digits && size !in listOf(1, 2, 4)) +
            signs.map { group -> end == start + 1 && codes[start] in group.map { it.toInt() } } +
            listOf(!letters && !digits, letters && size <= 2, letters && size == 3, letters && size >= 8) +
            listOf(n == 0, n == units.size - 1, n > 0 && units[n - 1].end == start, units.getOrNull(n + 1)?.start == end)
        return said.indices.filter { said[it] }
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
