package trunkline

/** The switches of a `BertNormalizer`. */
internal class BertOptions(val clean: Boolean, val wide: Boolean, val strip: Boolean, val lower: Boolean)

/** Characters, and for each the character of the text that it came from. */
internal class Normal(val codes: IntArray, val origins: IntArray)

/**
 * What BERT's normalizer and pre-tokenizer do, as in the library `tokenizers`, with the origin of every character.
 *
 * The table is made of that library itself, so that no platform's Unicode version matters.
 */
internal object Bert {
    private const val DROPPED = 1
    private const val BLANK = 2
    private const val WIDE = 4
    private const val MARK = 8
    private const val SPACE = 16
    private const val PUNCTUATION = 32
    private const val FIRST_SYLLABLE = 0xac00
    private const val LAST_SYLLABLE = 0xd7a3
    private const val VOWELS = 21
    private const val TAILS = 28

    private val table = Node(Json.read(resource("bert.json"), "bert.json"), "bert.json")
    private val kinds = ByteArray(0x110000).also { kinds ->
        val bits = listOf("dropped" to DROPPED, "blank" to BLANK, "wide" to WIDE, "marks" to MARK, "space" to SPACE, "punctuation" to PUNCTUATION)
        for ((name, bit) in bits) {
            ranges(table["ranges"][name]) { code -> kinds[code] = (kinds[code].toInt() or bit).toByte() }
        }
    }
    private val strip = byCode(table["strip"])
    private val lower = byCode(table["lower"])

    /** Normalises `codes[start]` to `codes[end]` (exclusive). */
    fun normalise(codes: IntArray, start: Int, end: Int, options: BertOptions): Normal {
        val found = Numbers()
        val origins = Numbers()
        for (origin in start until end) {
            fun last(code: Int) {
                for (part in (if (options.lower) lower[code] else null) ?: intArrayOf(code)) {
                    found.add(part)
                    origins.add(origin)
                }
            }
            fun put(code: Int) {
                if (!options.strip) last(code)
                else if (code in FIRST_SYLLABLE..LAST_SYLLABLE) syllable(code).forEach(::last)
                else if (!has(code, MARK)) (strip[code] ?: intArrayOf(code)).forEach(::last)
            }
            val code = codes[origin]
            if (options.clean && has(code, DROPPED)) continue
            val wide = options.wide && has(code, WIDE)
            if (wide) put(' '.toInt())
            put(if (options.clean && has(code, BLANK)) ' '.toInt() else code)
            if (wide) put(' '.toInt())
        }
        return Normal(found.toArray(), origins.toArray())
    }

    /** Ranges of words of normalised characters: blanks part them, punctuation stands alone. */
    fun preTokens(codes: IntArray): List<Border> {
        val found = ArrayList<Border>()
        var begin = -1
        for (place in 0..codes.size) {
            val ends = place == codes.size || has(codes[place], SPACE or PUNCTUATION)
            if (ends && begin >= 0) {
                found.add(Border(begin, place))
                begin = -1
            }
            if (place == codes.size) break
            if (has(codes[place], PUNCTUATION)) found.add(Border(place, place + 1))
            else if (!ends && begin < 0) begin = place
        }
        return found
    }

    private fun has(code: Int, bits: Int): Boolean = kinds[code].toInt() and bits != 0

    /** A syllable of Hangul taken apart (the Unicode standard, chapter 3.12). */
    private fun syllable(code: Int): List<Int> {
        val index = code - FIRST_SYLLABLE
        val rest = index / TAILS
        val parts = listOf(0x1100 + rest / VOWELS, 0x1161 + rest % VOWELS)
        return if (index % TAILS == 0) parts else parts + (0x11a7 + index % TAILS)
    }

    private fun byCode(groups: Node): Map<Int, IntArray> {
        val found = HashMap<Int, IntArray>()
        for ((text, codes) in groups.entries()) {
            val parts = text.codePoints().toArray()
            codes.list().forEach { found[it.size()] = parts }
        }
        return found
    }
}

/** A growing list of whole numbers. */
internal class Numbers {
    private var items = IntArray(16)
    var size = 0
        private set

    fun add(number: Int) {
        if (size == items.size) items = items.copyOf(2 * size)
        items[size++] = number
    }

    operator fun get(place: Int): Int = items[place]

    fun toArray(): IntArray = items.copyOf(size)
}
