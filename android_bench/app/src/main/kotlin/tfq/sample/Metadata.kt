package tfq.sample

import java.nio.ByteBuffer
import java.nio.ByteOrder

private const val BUFFER = "TFLITE_METADATA"
private const val END_OF_ZIP = 0x06054b50
private const val END_BYTES = 22

/**
 * What a file of tfq says of feeding it: real = (pixel - mean) / std, one value or one per channel, and the names of
 * the classes, if it has any.
 */
class Metadata(val mean: FloatArray, val std: FloatArray, val labels: List<String>)

/**
 * Reads the metadata of a .tflite (metadata_schema.fbs of tflite-support), which stand in its buffer TFLITE_METADATA,
 * and the labels, which stand in a zip archive behind the model.
 *
 * Throws IllegalArgumentException for a file that does not say how pixels become numbers.
 */
fun readMetadata(file: ByteBuffer): Metadata {
    val model = root(file)
    val entry = model.tables(6).firstOrNull { it.text(0) == BUFFER }
    val content = entry?.let { model.tables(4)[it.int(1)].bytes(0) }
    val input = content?.let { root(it).tables(3).firstOrNull()?.tables(2)?.firstOrNull() }
    val options = input?.tables(4)?.firstOrNull { it.byte(0) == 1 }?.table(1) // NormalizationOptions
    val (mean, std) = Pair(options?.floats(0), options?.floats(1))
    require(mean != null && std != null && mean.isNotEmpty() && mean.size == std.size) {
        "the model does not say how pixels become numbers; make it with tfq-quantize --preprocess=..., not none"
    }
    return Metadata(mean, std, labels(file))
}

private fun root(bytes: ByteBuffer): Table {
    val ordered = bytes.duplicate().order(ByteOrder.LITTLE_ENDIAN)
    return Table(ordered, ordered.getInt(0))
}

/** A table of a flatbuffer at `start`; fields go by their numbers, and an absent one is 0, null or empty. */
private class Table(private val bytes: ByteBuffer, private val start: Int) {
    fun byte(field: Int): Int = place(field)?.let { bytes.get(it).toInt() } ?: 0

    fun int(field: Int): Int = place(field)?.let { bytes.getInt(it) } ?: 0

    fun table(field: Int): Table? = place(field)?.let { Table(bytes, target(it)) }

    fun tables(field: Int): List<Table> = elements(field) { Table(bytes, target(it)) }

    fun floats(field: Int): FloatArray = elements(field) { bytes.getFloat(it) }.toFloatArray()

    fun text(field: Int): String = bytes(field).let { it.string(0, it.remaining()) }

    fun bytes(field: Int): ByteBuffer {
        val vector = place(field)?.let(::target) ?: return ByteBuffer.allocate(0)
        val view = bytes.duplicate()
        view.position(vector + 4)
        view.limit(vector + 4 + bytes.getInt(vector))
        return view.slice()
    }

    private fun <T> elements(field: Int, read: (Int) -> T): List<T> {
        val vector = place(field)?.let(::target) ?: return emptyList()
        return List(bytes.getInt(vector)) { read(vector + 4 + 4 * it) }
    }

    /** An offset counts from where it stands. */
    private fun target(place: Int) = place + bytes.getInt(place)

    private fun place(field: Int): Int? {
        val table = start - bytes.getInt(start)
        val entry = 4 + 2 * field
        val offset = if (entry < bytes.getShort(table)) bytes.getShort(table + entry).toInt() and 0xFFFF else 0
        return if (offset == 0) null else start + offset
    }
}

/** The lines of the first labels*.txt in the archive at the end, whose files are stored as they are. */
private fun labels(file: ByteBuffer): List<String> {
    val bytes = file.duplicate().order(ByteOrder.LITTLE_ENDIAN)
    val end = bytes.capacity() - END_BYTES // tfq's archives have no comment behind their end
    if (end < 0 || bytes.getInt(end) != END_OF_ZIP) return emptyList()
    var entry = bytes.getInt(end + 16)
    repeat(bytes.getShort(end + 10).toInt()) {
        val lengths = (28..32 step 2).map { bytes.getShort(entry + it).toInt() and 0xFFFF } // name, extra, comment
        val name = bytes.string(entry + 46, lengths[0])
        if (name.startsWith("labels")) {
            val local = bytes.getInt(entry + 42)
            val start = local + 30 + bytes.getShort(local + 26) + bytes.getShort(local + 28)
            return bytes.string(start, bytes.getInt(entry + 24)).removeSuffix("\n").split("\n")
        }
        entry += 46 + lengths.sum()
    }
    return emptyList()
}

private fun ByteBuffer.string(start: Int, length: Int): String {
    val view = duplicate()
    view.position(start)
    return String(ByteArray(length).also { view.get(it) })
}
