package trunkline

/**
 * A linear head: `weight` [hidden, labels], `bias` [labels], and `transitions` [labels + 1, labels] or none.
 *
 * `shapes` [`Words.SHAPES`, labels] is what the shapes of units add, or none.
 */
internal class Head(val weight: FloatArray, val bias: FloatArray, val transitions: FloatArray?, val shapes: FloatArray?)

/** A task: its head, and its own LoRA as inputs of the branch graph, or none where it sits on its family's adapter. */
internal class Task(
    val name: String,
    val family: String,
    val labels: List<String>,
    val units: String,
    val head: Head,
    val lora: Map<String, Tensor>?,
    val decisions: Decisions
)

/** Task files and primary adapters, read for a bundle and checked. */
internal object TaskFile {
    private val TARGETS = mapOf("qkv" to listOf("query", "key", "value"), "out" to listOf("out"), "up" to listOf("up"), "down" to listOf("down"))
    private val HEAD = listOf("head.weight", "head.bias", "head.transitions", "head.shapes")
    private val PLACE = Regex("lora\\.((?:0|[1-9][0-9]{0,3})\\.[a-z]+)\\.[ab]")

    fun task(content: ByteArray, manifest: Manifest, name: String, entry: String? = null): Task {
        val where = "task $name"
        val file = Safetensors(content, where)
        val said = description(file, "task", where, manifest)
        val family = said["family"].text()
        if (entry != null && entry != family) throw TrunklineError("$where is of family $family", "$entry, as the manifest says")
        val own = file.tensors.keys.any { it.startsWith("lora.") }
        val expected = if (own) "" else manifest.primaryOf(Families.branchOf(family))
        if (said["primary"].text() != expected) {
            throw TrunklineError(
                "$where sits on the adapter ${said["primary"].text().take(40).ifEmpty { "none" }}",
                "${expected.take(40).ifEmpty { "none" }}, that of this bundle",
                "Fit the task again on this bundle"
            )
        }
        val labels = said["labels"].list().map { it.text() }
        if (labels.toSet().size < labels.size) said["labels"].refuse("labels that differ")
        val lora = fused(file.tensors, manifest, where)
        val head = Head(
            shaped(file.tensors, "head.weight", listOf(manifest.hidden, labels.size), where),
            shaped(file.tensors, "head.bias", listOf(labels.size), where),
            if ("head.transitions" in file.tensors) shaped(file.tensors, "head.transitions", listOf(labels.size + 1, labels.size), where) else null,
            if ("head.shapes" in file.tensors) shaped(file.tensors, "head.shapes", listOf(Words.SHAPES, labels.size), where) else null
        )
        Families.of(family).checkLabels(labels, where)
        return Task(name, family, labels, said["units"].text(), head, if (own) lora else null, decisions(said["decisions"]))
    }

    private fun decisions(raw: Node): Decisions {
        if (!raw.isThere) return Decisions(0.0, null, mapOf())
        val thresholds = if (raw["thresholds"].isThere) raw["thresholds"].entries().mapValues { it.value.number() } else mapOf()
        val least = if (raw["min_score"].isThere) raw["min_score"].number() else 0.0
        return Decisions(least, if (raw["other"].isThere) raw["other"].text() else null, thresholds)
    }

    /** The inputs of the branch graph from a primary adapter's file. */
    fun primary(content: ByteArray, manifest: Manifest, family: String): Map<String, Tensor> {
        val where = "adapter $family"
        val file = Safetensors(content, where)
        val said = description(file, "adapter", where, manifest)
        if (said["family"].text() != family) throw TrunklineError("$where is of family ${said["family"].text()}", family)
        HEAD.find { it in file.tensors }?.let { throw TrunklineError("$where has $it", "a primary adapter, which is LoRA alone") }
        return fused(file.tensors, manifest, where)
    }

    private fun description(file: Safetensors, kind: String, where: String, manifest: Manifest): Node {
        val text = file.metadata["trunkline"] ?: throw TrunklineError("$where does not say what it is", "a file of kind $kind")
        val said = Node(Json.read(text, where), where)
        if (said["format"].value != 2L) said["format"].refuse("format 2")
        if (said["kind"].value != kind) said["kind"].refuse(kind)
        if (said["backbone"].text() != manifest.backbone) {
            throw TrunklineError(
                "$where was trained on backbone ${said["backbone"].text().take(12)}",
                "${manifest.backbone.take(12)}, the bundle's",
                "Fit the task again on the backbone of this bundle"
            )
        }
        return said
    }

    private fun shaped(tensors: Map<String, Tensor>, name: String, dims: List<Int>, where: String): FloatArray {
        val tensor = tensors[name]
        if (tensor != null && tensor.dims.toList() == dims) return tensor.data
        throw TrunklineError("$where has $name of shape ${tensor?.dims?.toList() ?: "none"}", "$dims, for its labels")
    }

    /**
     * Inputs of the branch graph from a file's updates, or from none.
     *
     * Query, key and value of a layer are one pair: `a` side by side, `b` block by block. Where there is no update
     * stands one of zeros, as the graph must be given every input, and not every runtime takes empty tensors.
     */
    fun fused(tensors: Map<String, Tensor>, manifest: Manifest, where: String): Map<String, Tensor> {
        val pairs = pairs(tensors, where)
        val found = HashMap<String, Tensor>()
        for ((place, size) in manifest.loraShapes) {
            val (inputs, outputs) = size
            val (layer, target) = place.split(".")
            val targets = TARGETS.getValue(target)
            val width = outputs / targets.size
            val present = targets.filter { "$layer.$it" in pairs }
            val parts = present.map { pairs.getValue("$layer.$it") }
            parts.forEachIndexed { number, (a, b) ->
                if (a.dims.size != 2 || a.dims[0] != inputs || b.dims.toList() != listOf(a.dims[1], width)) {
                    throw TrunklineError(
                        "$where: lora.$layer.${present[number]} has ${a.dims.toList()} and ${b.dims.toList()}",
                        "[$inputs, rank] and [rank, $width]"
                    )
                }
            }
            val rank = maxOf(1, parts.sumBy { it.first.dims[1] })
            val a = FloatArray(inputs * rank)
            val b = FloatArray(rank * outputs)
            var begin = 0
            parts.forEachIndexed { number, (left, right) ->
                val own = left.dims[1]
                val column = targets.indexOf(present[number]) * width
                for (n in 0 until inputs) left.data.copyInto(a, n * rank + begin, n * own, (n + 1) * own)
                for (n in 0 until own) right.data.copyInto(b, (begin + n) * outputs + column, n * width, (n + 1) * width)
                begin += own
            }
            present.forEach { pairs.remove("$layer.$it") }
            found["lora.$place.a"] = Tensor(intArrayOf(inputs, rank), a)
            found["lora.$place.b"] = Tensor(intArrayOf(rank, outputs), b)
        }
        pairs.keys.firstOrNull()?.let {
            throw TrunklineError("$where has updates lora.$it, for which the graph has no input", "other layers", "Export the bundle with a lower fork or with this LoRA target")
        }
        return found
    }

    private fun pairs(tensors: Map<String, Tensor>, where: String): MutableMap<String, Pair<Tensor, Tensor>> {
        val found = LinkedHashMap<String, Pair<Tensor, Tensor>>()
        for (name in tensors.keys - HEAD) {
            val place = PLACE.matchEntire(name)?.groupValues?.get(1)
            val a = tensors["lora.$place.a"]
            val b = tensors["lora.$place.b"]
            if (place == null || a == null || b == null) {
                throw TrunklineError("$where has the tensor ${name.take(60)}", "pairs lora.LAYER.TARGET.a and .b")
            }
            found[place] = Pair(a, b)
        }
        return found
    }
}
