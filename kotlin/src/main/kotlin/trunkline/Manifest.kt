package trunkline

/** A file of a bundle as the manifest describes it. */
internal class FileEntry(val sha256: String, val bytes: Int)

/** The manifest of a bundle, as far as prediction needs it, checked. */
internal class Manifest(content: String) {
    private val raw = Node(Json.read(content, FILE), FILE)
    val name: String
    val backbone: String
    val precision: String
    val hidden: Int
    val layers: Int
    val fork: Int
    val maxLength: Int
    val overlap: Int
    val padId: Int
    val vocabularySize: Int
    val trunk: String
    val branch: String
    val adapters: Map<String, String>
    val tasks: Map<String, Pair<String, String>>
    val files: Map<String, FileEntry>
    /** The LoRA inputs of the branch graph, `LAYER.TARGET` -> inputs and outputs. */
    val loraShapes: Map<String, Pair<Int, Int>>

    init {
        if (raw["format"].value != "trunkline-bundle") raw["format"].refuse("trunkline-bundle")
        if (raw["version"].value != 2L) raw["version"].refuse("version 2")
        name = matching(raw["name"], NAME)
        backbone = matching(raw["backbone"], HASH)
        precision = raw["weights"]["kind"].text()
        val encoder = raw["encoder"]
        hidden = encoder["hidden_size"].size()
        layers = encoder["n_layers"].size()
        fork = encoder["fork"].size()
        maxLength = encoder["max_length"].size()
        overlap = encoder["overlap"].size()
        padId = encoder["pad_id"].size()
        vocabularySize = encoder["vocabulary_size"].size()
        if (maxLength < 3 || overlap > (maxLength - 2) / 2) encoder["overlap"].refuse("at most half of a window")
        if (fork > layers) encoder["fork"].refuse("at most $layers layers")
        val graphs = raw["graphs"].entries().mapValues { it.value.text() }
        trunk = graphs["trunk"] ?: missing("trunk")
        branch = graphs["branch-required"] ?: missing("branch-required")
        adapters = raw["adapters"].entries().mapValues { it.value.text() }
        tasks = raw["tasks"].entries().mapValues { (_, task) -> Pair(task["family"].text(), task["file"].text()) }
        tasks.keys.forEach { matching(Node(it, "$FILE.tasks"), NAME) }
        files = raw["files"].entries().mapValues { (name, entry) ->
            if (!PATH.matches(name) || ".." in name) throw TrunklineError("$FILE names the file '${name.take(60)}'", "a place inside the bundle")
            FileEntry(matching(entry["sha256"], HASH), entry["bytes"].size())
        }
        for (file in listOf(TOKENIZER, trunk, branch) + adapters.values + tasks.values.map { it.second }) {
            if (file !in files) throw TrunklineError("$FILE does not list $file", "an entry in files", "Export the bundle again")
        }
        val wide = encoder["intermediate_size"].size()
        val sizes = mapOf("qkv" to Pair(hidden, 3 * hidden), "out" to Pair(hidden, hidden), "up" to Pair(hidden, wide), "down" to Pair(wide, hidden))
        val targets = raw["lora_targets"].list().map { it.text() to (sizes[it.text()] ?: it.refuse("one of ${sizes.keys}")) }
        loraShapes = (fork until layers).flatMap { layer -> targets.map { (target, size) -> "$layer.$target" to size } }.toMap()
    }

    /** What a task without LoRA sits on: FAMILY@SHA256 of the family's adapter, or nothing. */
    fun primaryOf(family: String): String = adapters[family]?.let { "$family@${files.getValue(it).sha256}" } ?: ""

    private fun matching(node: Node, pattern: Regex): String =
        node.text().also { if (!pattern.matches(it)) node.refuse("a text like $pattern") }

    private fun missing(graph: String): Nothing = throw TrunklineError(
        "$FILE has no graph $graph", "the graphs trunk and branch-required", "`trunkline export BUNDLE --out DIR --variant required` makes them"
    )

    companion object {
        const val FILE = "manifest.json"
        const val TOKENIZER = "tokenizer.json"
        val NAME = Regex("[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
        private val HASH = Regex("[0-9a-f]{64}")
        private val PATH = Regex("[A-Za-z0-9][A-Za-z0-9._/-]{0,199}")
    }
}
