#include "tensors.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <limits>

#include "errors.h"
#include "sha256.h"

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the container is little-endian");

namespace tfq {
namespace {

constexpr char kMagic[4] = {'T', 'F', 'Q', 'T'};
constexpr uint32_t kVersion = 1;
constexpr uint32_t kMaxTensors = 1024;
constexpr uint32_t kMaxName = 4096;
constexpr uint32_t kMaxRank = 8;
constexpr size_t kAlignment = 64;
constexpr size_t kMaxBytes = std::numeric_limits<size_t>::max() / 2;

struct ElementType {
  int32_t code;
  size_t bytes;
  const char* name;
};

constexpr ElementType kElementTypes[] = {
    {1, 4, "float32"},  {2, 4, "int32"},    {3, 1, "uint8"},        {4, 8, "int64"},
    {6, 1, "bool"},     {7, 2, "int16"},    {8, 8, "complex64"},    {9, 1, "int8"},
    {10, 2, "float16"}, {11, 8, "float64"}, {12, 16, "complex128"}, {13, 8, "uint64"},
    {16, 4, "uint32"},  {17, 2, "uint16"},  {19, 2, "bfloat16"}};

size_t Multiply(size_t a, size_t b) {
  if (b != 0 && a > kMaxBytes / b) throw Error("a tensor is larger than memory can hold");
  return a * b;
}

size_t Align(size_t offset) { return (offset + kAlignment - 1) / kAlignment * kAlignment; }

// Takes numbers off the front of the bytes.
class Reader {
 public:
  Reader(const uint8_t* data, size_t size) : data_(data), left_(size) {}

  const uint8_t* Take(size_t size) {
    if (size > left_) throw Error("the header is cut off");
    const uint8_t* taken = data_;
    data_ += size;
    left_ -= size;
    return taken;
  }
  template <typename T>
  T Number() {
    T value;
    std::memcpy(&value, Take(sizeof(T)), sizeof(T));
    return value;
  }
  uint32_t Limited(const char* what, uint32_t low, uint32_t high) {
    const uint32_t value = Number<uint32_t>();
    if (value < low || value > high) {
      throw Error(std::string(what) + " is " + std::to_string(value) + ", expected " +
                  std::to_string(low) + " to " + std::to_string(high));
    }
    return value;
  }
  size_t left() const { return left_; }

 private:
  const uint8_t* data_;
  size_t left_;
};

template <typename T>
void Append(std::vector<uint8_t>* out, T value) {
  uint8_t bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof(T));
  out->insert(out->end(), bytes, bytes + sizeof(T));
}

std::vector<uint8_t> Header(const TensorTable& table) {
  std::vector<uint8_t> out(kMagic, kMagic + sizeof(kMagic));
  Append<uint32_t>(&out, kVersion);
  Append<uint64_t>(&out, table.samples);
  Append<uint32_t>(&out, static_cast<uint32_t>(table.tensors.size()));
  for (const StoredTensor& tensor : table.tensors) {
    const TensorSpec& spec = tensor.spec;
    Append<uint32_t>(&out, static_cast<uint32_t>(spec.name.size()));
    out.insert(out.end(), spec.name.begin(), spec.name.end());
    Append<int32_t>(&out, spec.type);
    Append<uint32_t>(&out, static_cast<uint32_t>(spec.dims.size()));
    for (int32_t dim : spec.dims) Append<int32_t>(&out, dim);
    Append<uint64_t>(&out, tensor.offset);
  }
  return out;
}

}  // namespace

size_t ElementBytes(int32_t type) {
  for (const ElementType& known : kElementTypes) {
    if (known.code == type) return known.bytes;
  }
  return 0;
}

std::string TypeName(int32_t type) {
  for (const ElementType& known : kElementTypes) {
    if (known.code == type) return known.name;
  }
  return "type " + std::to_string(type);
}

std::string Written(const TensorSpec& spec) {
  std::string text = TypeName(spec.type) + " [";
  for (size_t i = 0; i < spec.dims.size(); ++i) {
    text += (i ? ", " : "") + std::to_string(spec.dims[i]);
  }
  return text + "]";
}

size_t SampleBytes(int32_t type, const std::vector<int32_t>& dims) {
  size_t bytes = ElementBytes(type);
  if (bytes == 0) {
    throw Error("elements of " + TypeName(type) + " have no fixed size; they are not supported");
  }
  for (int32_t dim : dims) {
    if (dim < 1) throw Error("a dimension is " + std::to_string(dim) + ", expected at least 1");
    bytes = Multiply(bytes, static_cast<size_t>(dim));
  }
  return bytes;
}

TensorTable ParseTensors(const uint8_t* data, size_t size) {
  Reader reader(data, size);
  if (size < sizeof(kMagic) || std::memcmp(reader.Take(sizeof(kMagic)), kMagic, sizeof(kMagic))) {
    throw Error("no tensor container: it does not begin with TFQT");
  }
  reader.Limited("the version", kVersion, kVersion);
  const uint64_t samples = reader.Number<uint64_t>();
  if (samples < 1 || samples > kMaxBytes) {
    throw Error("the number of samples is " + std::to_string(samples) + ", expected at least 1");
  }
  TensorTable table;
  table.samples = static_cast<size_t>(samples);
  const uint32_t count = reader.Limited("the number of tensors", 1, kMaxTensors);
  for (uint32_t i = 0; i < count; ++i) {
    StoredTensor tensor;
    const uint32_t name = reader.Limited("the length of a name", 0, kMaxName);
    const uint8_t* letters = reader.Take(name);
    tensor.spec.name.assign(letters, letters + name);
    tensor.spec.type = reader.Number<int32_t>();
    const uint32_t rank = reader.Limited("a rank", 0, kMaxRank);
    for (uint32_t k = 0; k < rank; ++k) tensor.spec.dims.push_back(reader.Number<int32_t>());
    tensor.spec.bytes = SampleBytes(tensor.spec.type, tensor.spec.dims);
    const uint64_t offset = reader.Number<uint64_t>();
    if (offset > size) {
      throw Error("a tensor begins at byte " + std::to_string(offset) + " of " +
                  std::to_string(size));
    }
    tensor.offset = static_cast<size_t>(offset);
    table.tensors.push_back(std::move(tensor));
  }
  size_t end = size - reader.left();
  for (const StoredTensor& tensor : table.tensors) {
    const size_t expected = Align(end);
    if (tensor.offset != expected) {
      throw Error("a tensor begins at byte " + std::to_string(tensor.offset) + ", expected " +
                  std::to_string(expected) + ", the next multiple of 64");
    }
    const size_t bytes = Multiply(tensor.spec.bytes, table.samples);
    if (bytes > size - tensor.offset) {
      throw Error("a tensor of " + std::to_string(bytes) + " bytes begins at byte " +
                  std::to_string(tensor.offset) + ", and the file has " + std::to_string(size) +
                  "; it is cut off");
    }
    end = tensor.offset + bytes;
  }
  if (end != size) {
    throw Error("the file has " + std::to_string(size) + " bytes, expected " + std::to_string(end));
  }
  return table;
}

TensorWriter::TensorWriter(const std::string& path, const std::vector<TensorSpec>& specs,
                           size_t samples)
    : path_(path) {
  table_.samples = samples;
  for (const TensorSpec& spec : specs) table_.tensors.push_back({spec, 0});
  size_t end = Header(table_).size();
  for (StoredTensor& tensor : table_.tensors) {
    tensor.offset = Align(end);
    end = tensor.offset + Multiply(tensor.spec.bytes, samples);
  }
  const std::string part = path_ + ".part";
  file_ = open(part.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (file_ < 0) throw SystemError("write", part);
  const std::vector<uint8_t> header = Header(table_);
  WriteAt(0, header.data(), header.size());
}

TensorWriter::~TensorWriter() {
  if (file_ >= 0) {
    close(file_);
    unlink((path_ + ".part").c_str());
  }
}

void TensorWriter::WriteAt(size_t offset, const void* data, size_t size) {
  const uint8_t* from = static_cast<const uint8_t*>(data);
  while (size > 0) {
    const ssize_t written = pwrite(file_, from, size, static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) throw SystemError("write", path_ + ".part");
    from += written;
    offset += static_cast<size_t>(written);
    size -= static_cast<size_t>(written);
  }
}

void TensorWriter::Write(size_t tensor, size_t sample, const void* data) {
  const StoredTensor& stored = table_.tensors[tensor];
  WriteAt(stored.offset + sample * stored.spec.bytes, data, stored.spec.bytes);
}

std::string TensorWriter::Finish() {
  const std::string part = path_ + ".part";
  Sha256 hash;
  std::vector<uint8_t> piece(1 << 16);
  for (const StoredTensor& tensor : table_.tensors) {
    size_t offset = tensor.offset;
    const size_t end = offset + tensor.spec.bytes * table_.samples;
    while (offset < end) {
      const size_t wanted = std::min(piece.size(), end - offset);
      const ssize_t got = pread(file_, piece.data(), wanted, static_cast<off_t>(offset));
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) throw SystemError("read back", part);
      hash.Update(piece.data(), static_cast<size_t>(got));
      offset += static_cast<size_t>(got);
    }
  }
  if (fsync(file_) != 0) throw SystemError("write", part);
  if (std::rename(part.c_str(), path_.c_str()) != 0) throw SystemError("write", path_);
  close(file_);
  file_ = -1;
  return hash.HexDigest();
}

}  // namespace tfq
