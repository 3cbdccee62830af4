package ai.onnxruntime;

/** Stands in for ONNX Runtime's Java API, as far as it is used here: computes by asking the test, and counts what is open. */
public interface OnnxValue extends AutoCloseable {
    void close();
}
