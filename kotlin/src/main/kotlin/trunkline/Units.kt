package trunkline

/** A text with its tokens: ids of all windows, their sizes, and where among the ids each token stands. */
internal class ReadText(
    val text: Text,
    val starts: IntArray,
    val ends: IntArray,
    val ids: IntArray,
    val sizes: IntArray,
    val place: IntArray
) {
    /** Borders of what gets a label: words, or pieces of the tokenizer; none for the text as a whole. */
    fun borders(kind: String): List<Border> = when (kind) {
        "text" -> listOf()
        "pieces" -> pieces
        else -> text.words
    }

    /** The words, cut wherever a piece of the tokenizer begins or ends inside of one, but never before a mark. */
    private val pieces: List<Border> by lazy {
        val cuts = (starts + ends).distinct().sorted()
        val found = ArrayList<Border>()
        var next = 0
        for ((start, end) in text.words) {
            var begin = start
            while (next < cuts.size && cuts[next] <= start) next++
            while (next < cuts.size && cuts[next] < end) {
                if (!Words.extending(text.codes[cuts[next]])) {
                    found.add(Border(begin, cuts[next]))
                    begin = cuts[next]
                }
                next++
            }
            found.add(Border(begin, end))
        }
        found
    }
}

/** Pairs of a token (index into the ids of all windows) and the unit that it belongs to. */
internal class UnitTokens(val token: IntArray, val unit: IntArray, val count: Int)

internal object Units {
    /** The longest text, in code points. */
    private const val MOST = 1_000_000

    /** Tokenises a text; nothing is cut off. */
    fun read(text: String, tokenizer: WordPiece, maxLength: Int, overlap: Int): ReadText {
        val own = Text(text)
        if (own.codes.size > MOST) throw TrunklineError("a text of ${own.codes.size} characters", "at most $MOST", "Split it")
        val tokens = tokenizer.encode(own.codes)
        val room = maxLength - 2
        val begins = ArrayList<Int>().apply { add(0) }
        val stride = room - overlap
        var start = stride
        while (tokens.ids.size > room && start < tokens.ids.size - overlap) {
            begins.add(start)
            start += stride
        }
        val ids = Numbers()
        val shifts = IntArray(begins.size)
        val sizes = IntArray(begins.size)
        begins.forEachIndexed { number, begin ->
            val before = ids.size
            shifts[number] = before - begin + 1
            ids.add(tokenizer.opening)
            for (token in begin until minOf(begin + room, tokens.ids.size)) ids.add(tokens.ids[token])
            ids.add(tokenizer.closing)
            sizes[number] = ids.size - before
        }
        // Where neighbours overlap, each answers for the half of the shared tokens that is nearer to its middle.
        val half = overlap / 2
        var window = 0
        val place = IntArray(tokens.ids.size) { token ->
            while (window + 1 < begins.size && begins[window + 1] + half <= token) window++
            shifts[window] + token
        }
        return ReadText(own, tokens.starts, tokens.ends, ids.toArray(), sizes, place)
    }

    /** Words or pieces: a token belongs to each that it overlaps; one without a token gets the opening one. */
    fun ofWords(read: ReadText, borders: List<Border>): UnitTokens {
        val token = Numbers()
        val unit = Numbers()
        val held = BooleanArray(borders.size)
        var first = 0
        for (number in read.starts.indices) {
            while (first < borders.size && borders[first].end <= read.starts[number]) first++
            var own = first
            while (own < borders.size && borders[own].start < read.ends[number]) {
                token.add(read.place[number])
                unit.add(own)
                held[own++] = true
            }
        }
        for (own in borders.indices) {
            if (held[own]) continue
            token.add(0)
            unit.add(own)
        }
        return UnitTokens(token.toArray(), unit.toArray(), borders.size)
    }

    /** A whole text as one unit: all its tokens, the special ones included. */
    fun ofText(read: ReadText): UnitTokens {
        val frame = Numbers()
        var end = 0
        for (size in read.sizes) {
            frame.add(end)
            end += size
            frame.add(end - 1)
        }
        val token = frame.toArray() + read.place
        return UnitTokens(token, IntArray(token.size), 1)
    }
}
