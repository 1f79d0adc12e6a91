package tfq.sample

import android.content.Context
import java.io.Closeable
import java.io.FileInputStream
import java.nio.ByteBuffer
import java.nio.channels.FileChannel
import org.tensorflow.lite.DataType
import org.tensorflow.lite.Interpreter
import org.tensorflow.lite.Tensor

/** The model in the app's assets, an image classifier that tfq wrote. Not for several threads at once. */
class Classifier(context: Context) : Closeable {
    private val file = mapped(context, "model.tflite")
    private val metadata = readMetadata(file)
    private val interpreter = Interpreter(file)
    private val input = info(interpreter.getInputTensor(0))
    private val output = info(interpreter.getOutputTensor(0))

    /** The best classes of a picture and their scores. */
    fun classify(picture: Picture, count: Int): List<Pair<String, Float>> {
        val elements = output.buffer()
        interpreter.run(feed(picture, input, metadata), elements)
        val scores = output.real(elements)
        return best(scores, count).map { Pair(metadata.labels.getOrElse(it) { place -> "class $place" }, scores[it]) }
    }

    override fun close() = interpreter.close()
}

private fun mapped(context: Context, name: String): ByteBuffer =
    context.assets.openFd(name).use { asset ->
        FileInputStream(asset.fileDescriptor).channel
            .map(FileChannel.MapMode.READ_ONLY, asset.startOffset, asset.declaredLength)
    }

private fun info(tensor: Tensor): TensorInfo {
    val kind = when (tensor.dataType()) {
        DataType.FLOAT32 -> Kind.FLOAT32
        DataType.INT8 -> Kind.INT8
        DataType.UINT8 -> Kind.UINT8
        else -> throw IllegalArgumentException("${tensor.name()} is ${tensor.dataType()}; expected 8 bits or float32")
    }
    val grid = tensor.quantizationParams()
    return TensorInfo(kind, tensor.shape(), grid.scale, grid.zeroPoint)
}
