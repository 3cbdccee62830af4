package trunkline

import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OrtEnvironment
import ai.onnxruntime.OrtSession
import java.io.File
import java.nio.FloatBuffer
import java.nio.LongBuffer

/** The graphs on ONNX Runtime: `Model.load(folder) { trunk, branch -> OnnxGraphs(trunk, branch) }`. */
class OnnxGraphs(trunk: File, branch: File, threads: Int = 1) : Graphs {
    private val environment = OrtEnvironment.getEnvironment()
    private val trunk = session(trunk, threads)
    private val branch = session(branch, threads)

    override fun trunk(ids: LongArray, mask: FloatArray, rows: Int, width: Int): Tensor {
        val shape = longArrayOf(rows.toLong(), width.toLong())
        return run(trunk, "hidden") {
            mapOf(
                "ids" to it.own(OnnxTensor.createTensor(environment, LongBuffer.wrap(ids), shape)),
                "mask" to it.own(OnnxTensor.createTensor(environment, FloatBuffer.wrap(mask), shape))
            )
        }
    }

    override fun branch(inputs: Map<String, Tensor>): Tensor = run(branch, "logits") { tensors ->
        inputs.mapValues { (_, tensor) ->
            val shape = LongArray(tensor.dims.size) { tensor.dims[it].toLong() }
            tensors.own(OnnxTensor.createTensor(environment, FloatBuffer.wrap(tensor.data), shape))
        }
    }

    override fun close() {
        trunk.close()
        branch.close()
    }

    /** Closes what is made for a run, even if making the rest or the run fails. */
    private class Owned : AutoCloseable {
        private val tensors = ArrayList<OnnxTensor>()

        fun own(tensor: OnnxTensor): OnnxTensor = tensor.also { tensors.add(it) }

        override fun close() = tensors.forEach { it.close() }
    }

    private fun run(session: OrtSession, output: String, inputs: (Owned) -> Map<String, OnnxTensor>): Tensor {
        val owned = Owned()
        try {
            val result = session.run(inputs(owned), setOf(output))
            try {
                val tensor = result.get(0) as OnnxTensor
                val shape = tensor.info.shape
                val buffer = tensor.floatBuffer
                return Tensor(IntArray(shape.size) { shape[it].toInt() }, FloatArray(buffer.remaining()).also { buffer.get(it) })
            } finally {
                result.close()
            }
        } finally {
            owned.close()
        }
    }

    private fun session(graph: File, threads: Int): OrtSession {
        val options = OrtSession.SessionOptions()
        try {
            options.setIntraOpNumThreads(threads)
            options.setInterOpNumThreads(1)
            // Higher levels fuse Add and LayerNormalization into a kernel that is far slower on processors.
            options.setOptimizationLevel(OrtSession.SessionOptions.OptLevel.BASIC_OPT)
            return environment.createSession(graph.path, options)
        } finally {
            options.close()
        }
    }
}
