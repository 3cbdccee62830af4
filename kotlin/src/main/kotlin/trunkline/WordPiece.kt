package trunkline

/** Tokens of a text without special tokens; offsets count code points. */
internal class Encoded(val ids: IntArray, val starts: IntArray, val ends: IntArray)

/** WordPiece with offsets, read from a bundle's `tokenizer.json`; any other tokenizer is refused by name. */
internal class WordPiece(content: String) {
    val opening: Int
    val closing: Int
    val size: Int
    private val vocabulary: Map<String, Int>
    private val longest: Int
    private val unknown: Int
    private val prefix: String
    private val most: Int
    private val options: BertOptions
    private val added: List<Pair<IntArray, Int>>

    init {
        val raw = Node(Json.read(content, FILE), FILE)
        refuseOther(raw, "model", "WordPiece")
        refuseOther(raw, "normalizer", "BertNormalizer")
        refuseOther(raw, "pre_tokenizer", "BertPreTokenizer")
        val model = raw["model"]
        val normalizer = raw["normalizer"]
        vocabulary = model["vocab"].entries().mapValues { it.value.size() }
        longest = vocabulary.keys.map { it.length }.max() ?: 0
        prefix = if (model["continuing_subword_prefix"].isThere) model["continuing_subword_prefix"].text() else "##"
        most = if (model["max_input_chars_per_word"].isThere) model["max_input_chars_per_word"].size() else 100
        fun switch(name: String, other: Boolean) = if (normalizer[name].isThere) normalizer[name].flag() else other
        val lower = switch("lowercase", true)
        options = BertOptions(switch("clean_text", true), switch("handle_chinese_chars", true), switch("strip_accents", lower), lower)
        added = (if (raw["added_tokens"].isThere) raw["added_tokens"].list() else listOf()).map(::addedToken)
            .sortedByDescending { it.first.size }
        size = (vocabulary.values + added.map { it.second }).toSet().size
        unknown = idOf(if (model["unk_token"].isThere) model["unk_token"].text() else "[UNK]")
        val frame = frame(raw["post_processor"])
        opening = frame.first
        closing = frame.second
    }

    /** The tokens of a text, given by its code points. */
    fun encode(codes: IntArray): Encoded {
        val found = Found()
        val whole = IntArray(codes.size) { if (codes[it] in 0xd800..0xdfff) REPLACEMENT else codes[it] }
        var begin = 0
        var place = 0
        while (place < whole.size) {
            val token = added.find { (own, _) -> own.indices.all { place + it < whole.size && whole[place + it] == own[it] } }
            if (token == null) {
                place++
                continue
            }
            section(whole, begin, place, found)
            begin = place + token.first.size
            found.add(token.second, place, begin)
            place = begin
        }
        section(whole, begin, whole.size, found)
        return Encoded(found.ids.toArray(), found.starts.toArray(), found.ends.toArray())
    }

    private class Found {
        val ids = Numbers()
        val starts = Numbers()
        val ends = Numbers()

        fun add(id: Int, start: Int, end: Int) {
            ids.add(id)
            starts.add(start)
            ends.add(end)
        }
    }

    private fun section(codes: IntArray, start: Int, end: Int, found: Found) {
        if (start == end) return
        val normal = Bert.normalise(codes, start, end, options)
        for ((first, last) in Bert.preTokens(normal.codes)) {
            for ((id, begin, close) in pieces(normal.codes, first, last)) {
                found.add(id, normal.origins[begin], normal.origins[close - 1] + 1)
            }
        }
    }

    /** The longest pieces from the left; the whole word is unknown if one is missing. */
    private fun pieces(codes: IntArray, first: Int, last: Int): List<Triple<Int, Int, Int>> {
        val whole = listOf(Triple(unknown, first, last))
        if (last - first > most) return whole
        val found = ArrayList<Triple<Int, Int, Int>>()
        var start = first
        while (start < last) {
            var end = minOf(last, start + longest)
            var id: Int? = null
            while (end > start) {
                val piece = String(codes, start, end - start)
                id = vocabulary[if (start > first) prefix + piece else piece]
                if (id != null) break
                end--
            }
            found.add(Triple(id ?: return whole, start, end))
            start = end
        }
        return found
    }

    private fun idOf(token: String): Int =
        vocabulary[token] ?: throw TrunklineError("$FILE has no token $token", "one in the vocabulary")

    /** The two special tokens that a post-processor adds to a text. */
    private fun frame(raw: Node): Pair<Int, Int> {
        val kind = if (raw.isThere) raw["type"].value else null
        if (kind == "BertProcessing") return Pair(raw["cls"].list()[1].size(), raw["sep"].list()[1].size())
        val names = if (kind == "TemplateProcessing") {
            raw["single"].list().map { if (it["SpecialToken"].isThere) it["SpecialToken"]["id"].text() else "" }
        } else listOf()
        if (names.size != 3 || names[1] != "" || names[0] == "" || names[2] == "") {
            throw TrunklineError("$FILE has the post_processor $kind", "one token before a text, one behind")
        }
        fun id(name: String) = raw["special_tokens"][name]["ids"].list()[0].size()
        return Pair(id(names[0]), id(names[2]))
    }

    private fun refuseOther(raw: Node, part: String, wanted: String) {
        val kind = if (raw[part].isThere) raw[part]["type"].value else null
        if (kind != wanted) {
            throw TrunklineError(
                "$FILE has the $part $kind",
                "WordPiece behind BertNormalizer and BertPreTokenizer, as encoders of the BERT kind have it",
                "Take a bundle on another encoder, or run this one in Python"
            )
        }
    }

    private fun addedToken(raw: Node): Pair<IntArray, Int> {
        val content = raw["content"].text()
        val other = listOf("normalized", "lstrip", "rstrip", "single_word").find { raw[it].value == true }
        if (other != null || content == "") {
            throw TrunklineError("$FILE has the added token '${content.take(40)}' with $other", "plain special tokens")
        }
        return Pair(content.codePoints().toArray(), raw["id"].size())
    }

    private companion object {
        const val FILE = "tokenizer.json"

        /** Stands for half of a surrogate pair, which no tokenizer takes. */
        const val REPLACEMENT = 0xfffd
    }
}
