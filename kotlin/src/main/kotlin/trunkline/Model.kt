package trunkline

import java.io.Closeable
import java.io.File
import java.security.MessageDigest

/** A bundle with its tasks. Several threads may predict at the same time if the graphs allow it. */
class Model private constructor(
    private val manifest: Manifest,
    private val tokenizer: WordPiece,
    private val primaries: Map<String, Map<String, Tensor>>,
    private val graphs: Graphs
) : Closeable {
    private val engine = Engine(graphs)
    @Volatile private var known: Map<String, Task> = mapOf()
    @Volatile private var groups: List<Group> = listOf()

    /** The bundle's name. */
    val name: String get() = manifest.name

    /** Of the weights that compute: `float32`, `int8` or `int4`. */
    val precision: String get() = manifest.precision

    /** The tasks, name -> family. */
    val tasks: Map<String, String> get() = known.mapValues { it.value.family }

    /**
     * What each task says of a text; all tasks by default. The text runs through the trunk once.
     *
     * With `minScore` nothing is said that scores lower; by default each task's file decides.
     */
    fun predict(text: String, tasks: Collection<String>? = null, minScore: Double? = null): Map<String, Prediction> {
        val there = known
        val chosen = tasks ?: there.keys
        val unknown = chosen.filter { it !in there }
        if (unknown.isNotEmpty() || there.isEmpty()) {
            throw TrunklineError("there is no task ${unknown.joinToString()}", there.keys.joinToString(prefix = "one of ").takeIf { there.isNotEmpty() } ?: "a task", "Add one with add(name, file)")
        }
        val wanted = if (tasks == null) groups else group(there.values.filter { it.name in chosen })
        val read = Units.read(text, tokenizer, manifest.maxLength, manifest.overlap)
        val borders = wanted.map { read.borders(it.units) }
        val said = engine.run(read, wanted.mapIndexed { n, group -> Pair(group.branch, Families.of(group.family).units(read, borders[n])) })
        val found = HashMap<String, Prediction>()
        wanted.forEachIndexed { n, group ->
            var column = 0
            for (task in group.tasks) {
                val size = task.labels.size
                val units = said[n].size / group.branch.width
                val logits = FloatArray(units * size) { said[n][it / size * group.branch.width + column + it % size] + task.head.bias[it % size] }
                task.head.shapes?.let { weight ->
                    Words.shapes(read.text.codes, borders[n]).forEachIndexed { unit, shapes ->
                        for (shape in shapes) for (label in 0 until size) logits[unit * size + label] += weight[shape * size + label]
                    }
                }
                val family = Families.of(task.family)
                val chances = family.probabilities(logits, size)
                val scored = Scored(chances, read.text, borders[n], task.labels, task.head.transitions, task.decisions)
                found[task.name] = family.decode(scored, minScore)
                column += size
            }
        }
        return chosen.associateWith { found.getValue(it) }
    }

    /** Adds a task from its file's content, or replaces the one of this name. */
    @Synchronized
    fun add(name: String, content: ByteArray) {
        if (!Manifest.NAME.matches(name)) throw TrunklineError("the name '${name.take(40)}'", "letters, digits, '.', '_' and '-'")
        put(known + (name to TaskFile.task(content, manifest, name)))
    }

    /** Removes a task. */
    @Synchronized
    fun remove(name: String) {
        if (name !in known) throw TrunklineError("there is no task $name", "one of ${known.keys.joinToString()}")
        put(known - name)
    }

    /** Gives the graphs back; the model cannot predict any more. */
    override fun close() = graphs.close()

    private fun put(tasks: Map<String, Task>) {
        groups = group(tasks.values)
        known = tasks
    }

    /** Tasks that share a pass above the fork. */
    private class Group(val family: String, val units: String, val tasks: List<Task>, val branch: Branch)

    private fun group(tasks: Collection<Task>): List<Group> =
        tasks.sortedBy { it.name }.groupBy { Triple(if (it.lora == null) "" else it.name, Families.branchOf(it.family), it.units) }.values.map { own ->
            val first = own[0]
            val width = own.sumBy { it.labels.size }
            val weight = FloatArray(manifest.hidden * width)
            var column = 0
            for (task in own) {
                val size = task.labels.size
                for (row in 0 until manifest.hidden) task.head.weight.copyInto(weight, row * width + column, row * size, (row + 1) * size)
                column += size
            }
            val head = mapOf(
                "head.weight" to Tensor(intArrayOf(manifest.hidden, width), weight),
                "head.bias" to Tensor(intArrayOf(width), FloatArray(width))
            )
            val family = Families.branchOf(first.family)
            Group(family, first.units, own, Branch((first.lora ?: primaries[family] ?: none()) + head, width))
        }

    private fun none(): Map<String, Tensor> = TaskFile.fused(mapOf(), manifest, name)

    companion object {
        private const val MOST_MANIFEST = 8 shl 20
        private const val MOST_FILE = 256 shl 20

        /**
         * Opens the folder of a bundle. Every file's size and SHA-256 are checked before it is used.
         *
         * `open` makes the graphs of the files `trunk` and `branch-required`, which have been checked.
         */
        fun load(folder: File, open: (trunk: File, branch: File) -> Graphs): Model {
            val manifest = Manifest(String(bounded(File(folder, Manifest.FILE), MOST_MANIFEST), Charsets.UTF_8))
            fun content(file: String): ByteArray = bounded(File(folder, file), MOST_FILE).also { check(file, manifest, it.size.toLong(), sha256(File(folder, file))) }
            for (graph in listOf(manifest.trunk, manifest.branch)) {
                check(graph, manifest, File(folder, graph).length(), sha256(File(folder, graph)))
            }
            val tokenizer = WordPiece(String(content(Manifest.TOKENIZER), Charsets.UTF_8))
            if (tokenizer.size > manifest.vocabularySize) {
                throw TrunklineError("tokenizer.json has ${tokenizer.size} tokens", "at most ${manifest.vocabularySize}, the encoder's")
            }
            val primaries = manifest.adapters.mapValues { (family, file) -> TaskFile.primary(content(file), manifest, family) }
            val tasks = manifest.tasks.mapValues { (name, task) -> TaskFile.task(content(task.second), manifest, name, task.first) }
            val model = Model(manifest, tokenizer, primaries, open(File(folder, manifest.trunk), File(folder, manifest.branch)))
            model.put(tasks)
            return model
        }

        private fun bounded(file: File, most: Int): ByteArray {
            if (!file.isFile) throw TrunklineError("there is no file ${file.name}", "all files of the bundle's folder", "Fetch the bundle again")
            if (file.length() > most) throw TrunklineError("${file.name} has ${file.length()} bytes", "at most $most")
            return file.readBytes()
        }

        private fun check(file: String, manifest: Manifest, bytes: Long, sha256: String) {
            val entry = manifest.files.getValue(file)
            if (bytes != entry.bytes.toLong()) throw TrunklineError("$file has $bytes bytes", "${entry.bytes}, as the manifest says", "Fetch the bundle again")
            if (sha256 != entry.sha256) throw TrunklineError("$file has another SHA-256 than the manifest says", "an unchanged file", "Fetch the bundle again")
        }

        private fun sha256(file: File): String {
            val digest = MessageDigest.getInstance("SHA-256")
            file.inputStream().use { stream ->
                val part = ByteArray(1 shl 16)
                while (true) {
                    val size = stream.read(part)
                    if (size < 0) break
                    digest.update(part, 0, size)
                }
            }
            return digest.digest().joinToString("") { "%02x".format(it) }
        }
    }
}
