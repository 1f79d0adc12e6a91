// The container of inputs and outputs (.tensors; the format is in FORMAT.md): for every tensor all
// samples, contiguous and aligned, so that a sample is an address. `ParseTensors` is a pure
// function over bytes that believes no number in them; `TensorWriter` writes sample by sample and
// shows the file under its name only when it is whole.

#ifndef TFQ_ANDROID_BENCH_RUNNER_TENSORS_H_
#define TFQ_ANDROID_BENCH_RUNNER_TENSORS_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace tfq {

// What one tensor of a model or of a container is. `type` is a TfLiteType.
struct TensorSpec {
  std::string name;
  int32_t type = 0;
  std::vector<int32_t> dims;  // of one sample, batch axis included
  size_t bytes = 0;           // of one sample
};

struct StoredTensor {
  TensorSpec spec;
  size_t offset = 0;  // of the first sample, from the beginning of the file
};

struct TensorTable {
  size_t samples = 0;
  std::vector<StoredTensor> tensors;
};

// Bytes of one element of a TfLiteType; 0 for types without a fixed size.
size_t ElementBytes(int32_t type);

// "float32", "int8" and so on; "type N" for others.
std::string TypeName(int32_t type);

// "int8 [1, 32, 32, 3]"
std::string Written(const TensorSpec& spec);

// The product of the dims and the element's size. Throws Error where it is no size, or not one that
// fits into memory.
size_t SampleBytes(int32_t type, const std::vector<int32_t>& dims);

// Throws Error.
TensorTable ParseTensors(const uint8_t* data, size_t size);

class TensorWriter {
 public:
  // Writes to PATH.part. Throws Error.
  TensorWriter(const std::string& path, const std::vector<TensorSpec>& specs, size_t samples);
  ~TensorWriter();
  TensorWriter(const TensorWriter&) = delete;
  TensorWriter& operator=(const TensorWriter&) = delete;

  void Write(size_t tensor, size_t sample, const void* data);
  // Puts the file in its place; the SHA-256 of all tensors' data, in order, without header and
  // padding.
  std::string Finish();

 private:
  void WriteAt(size_t offset, const void* data, size_t size);

  std::string path_;
  TensorTable table_;
  int file_ = -1;
};

}  // namespace tfq

#endif  // TFQ_ANDROID_BENCH_RUNNER_TENSORS_H_
