#include "runtime_litert.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "errors.h"

namespace tfq {
namespace {

// The C API, as far as it is used. All handles are opaque pointers, all statuses int, 0 for
// success.
using Handle = void*;

struct Layout {
  uint32_t rank_and_flags;  // 7 bits of rank, 1 bit: the strides are set
  int32_t dims[8];
  uint32_t strides[8];
};

struct RankedType {
  int32_t element;
  Layout layout;
};
static_assert(sizeof(RankedType) == 72, "the size of the ABI");

struct Any {
  int32_t type;
  union {
    int64_t number;
    const char* text;
  };
};

struct EnvironmentOption {
  int32_t tag;
  Any value;
};

struct MemoryUsage {
  int64_t footprint_kb;
  size_t allocated, in_use;
};

struct ProfiledEvent {
  const char* tag;
  int32_t type;
  uint64_t start_us, elapsed_us;
  MemoryUsage before, after;
  uint64_t metadata1, metadata2;
  int32_t source;
};

constexpr int32_t kAnyText = 8;
constexpr int32_t kDispatchLibraryDir = 1, kRuntimeLibraryDir = 22;
constexpr int kCpu = 1, kGpu = 2, kNpu = 4;
constexpr int kRead = 0, kWrite = 1;
constexpr int32_t kPlainOp = 2, kDelegatedOp = 8;

struct Api {
  int (*LiteRtCreateEnvironment)(int, const EnvironmentOption*, Handle*);
  void (*LiteRtDestroyEnvironment)(Handle);
  int (*LiteRtGetNumAccelerators)(Handle, size_t*);
  int (*LiteRtGetAccelerator)(Handle, size_t, Handle*);
  int (*LiteRtGetAcceleratorName)(Handle, const char**);
  int (*LiteRtCreateModelFromFile)(Handle, const char*, Handle*);
  void (*LiteRtDestroyModel)(Handle);
  int (*LiteRtGetNumModelSignatures)(Handle, size_t*);
  int (*LiteRtGetModelSignature)(Handle, size_t, Handle*);
  int (*LiteRtGetSignatureSubgraph)(Handle, Handle*);
  int (*LiteRtGetNumSignatureInputs)(Handle, size_t*);
  int (*LiteRtGetSignatureInputName)(Handle, size_t, const char**);
  int (*LiteRtGetSignatureInputTensorByIndex)(Handle, size_t, Handle*);
  int (*LiteRtGetNumSignatureOutputs)(Handle, size_t*);
  int (*LiteRtGetSignatureOutputName)(Handle, size_t, const char**);
  int (*LiteRtGetSignatureOutputTensorByIndex)(Handle, size_t, Handle*);
  int (*LiteRtGetNumSubgraphInputs)(Handle, size_t*);
  int (*LiteRtGetSubgraphInput)(Handle, size_t, Handle*);
  int (*LiteRtGetNumSubgraphOutputs)(Handle, size_t*);
  int (*LiteRtGetSubgraphOutput)(Handle, size_t, Handle*);
  int (*LiteRtGetNumSubgraphOps)(Handle, size_t*);
  int (*LiteRtGetSubgraphOp)(Handle, size_t, Handle*);
  int (*LiteRtGetOpOutput)(Handle, size_t, Handle*);
  int (*LiteRtGetTensorName)(Handle, const char**);
  int (*LiteRtGetTensorTypeId)(Handle, int32_t*);
  int (*LiteRtGetRankedTensorType)(Handle, RankedType*);
  int (*LiteRtCreateOptions)(Handle*);
  void (*LiteRtDestroyOptions)(Handle);
  int (*LiteRtSetOptionsHardwareAccelerators)(Handle, int);
  int (*LiteRtCreateOpaqueOptions)(const char*, void*, void (*)(void*), Handle*);
  int (*LiteRtAddOpaqueOptions)(Handle, Handle);
  int (*LiteRtCreateCompiledModel)(Handle, Handle, Handle, Handle*);
  void (*LiteRtDestroyCompiledModel)(Handle);
  int (*LiteRtCompiledModelIsFullyAccelerated)(Handle, bool*);
  int (*LiteRtGetCompiledModelInputTensorLayout)(Handle, size_t, size_t, Layout*);
  int (*LiteRtGetCompiledModelOutputTensorLayouts)(Handle, size_t, size_t, Layout*, bool);
  int (*LiteRtGetCompiledModelInputBufferRequirements)(Handle, size_t, size_t, Handle*);
  int (*LiteRtGetCompiledModelOutputBufferRequirements)(Handle, size_t, size_t, Handle*);
  int (*LiteRtCreateManagedTensorBufferFromRequirements)(Handle, const RankedType*, Handle,
                                                         Handle*);
  int (*LiteRtLockTensorBuffer)(Handle, void**, int);
  int (*LiteRtUnlockTensorBuffer)(Handle);
  void (*LiteRtDestroyTensorBuffer)(Handle);
  int (*LiteRtRunCompiledModel)(Handle, size_t, size_t, Handle*, size_t, Handle*);
  int (*LiteRtCompiledModelGetProfiler)(Handle, Handle*);
  int (*LiteRtStartProfiler)(Handle);
  int (*LiteRtResetProfiler)(Handle);
  int (*LiteRtGetNumProfilerEvents)(Handle, int*);
  int (*LiteRtGetProfilerEvents)(Handle, int, ProfiledEvent*);
};

Api BindAll(const Library& library) {
  Api api;
#define TFQ_BIND(function) library.Bind(#function, &api.function)
  TFQ_BIND(LiteRtCreateEnvironment);
  TFQ_BIND(LiteRtDestroyEnvironment);
  TFQ_BIND(LiteRtGetNumAccelerators);
  TFQ_BIND(LiteRtGetAccelerator);
  TFQ_BIND(LiteRtGetAcceleratorName);
  TFQ_BIND(LiteRtCreateModelFromFile);
  TFQ_BIND(LiteRtDestroyModel);
  TFQ_BIND(LiteRtGetNumModelSignatures);
  TFQ_BIND(LiteRtGetModelSignature);
  TFQ_BIND(LiteRtGetSignatureSubgraph);
  TFQ_BIND(LiteRtGetNumSignatureInputs);
  TFQ_BIND(LiteRtGetSignatureInputName);
  TFQ_BIND(LiteRtGetSignatureInputTensorByIndex);
  TFQ_BIND(LiteRtGetNumSignatureOutputs);
  TFQ_BIND(LiteRtGetSignatureOutputName);
  TFQ_BIND(LiteRtGetSignatureOutputTensorByIndex);
  TFQ_BIND(LiteRtGetNumSubgraphInputs);
  TFQ_BIND(LiteRtGetSubgraphInput);
  TFQ_BIND(LiteRtGetNumSubgraphOutputs);
  TFQ_BIND(LiteRtGetSubgraphOutput);
  TFQ_BIND(LiteRtGetNumSubgraphOps);
  TFQ_BIND(LiteRtGetSubgraphOp);
  TFQ_BIND(LiteRtGetOpOutput);
  TFQ_BIND(LiteRtGetTensorName);
  TFQ_BIND(LiteRtGetTensorTypeId);
  TFQ_BIND(LiteRtGetRankedTensorType);
  TFQ_BIND(LiteRtCreateOptions);
  TFQ_BIND(LiteRtDestroyOptions);
  TFQ_BIND(LiteRtSetOptionsHardwareAccelerators);
  TFQ_BIND(LiteRtCreateOpaqueOptions);
  TFQ_BIND(LiteRtAddOpaqueOptions);
  TFQ_BIND(LiteRtCreateCompiledModel);
  TFQ_BIND(LiteRtDestroyCompiledModel);
  TFQ_BIND(LiteRtCompiledModelIsFullyAccelerated);
  TFQ_BIND(LiteRtGetCompiledModelInputTensorLayout);
  TFQ_BIND(LiteRtGetCompiledModelOutputTensorLayouts);
  TFQ_BIND(LiteRtGetCompiledModelInputBufferRequirements);
  TFQ_BIND(LiteRtGetCompiledModelOutputBufferRequirements);
  TFQ_BIND(LiteRtCreateManagedTensorBufferFromRequirements);
  TFQ_BIND(LiteRtLockTensorBuffer);
  TFQ_BIND(LiteRtUnlockTensorBuffer);
  TFQ_BIND(LiteRtDestroyTensorBuffer);
  TFQ_BIND(LiteRtRunCompiledModel);
  TFQ_BIND(LiteRtCompiledModelGetProfiler);
  TFQ_BIND(LiteRtStartProfiler);
  TFQ_BIND(LiteRtResetProfiler);
  TFQ_BIND(LiteRtGetNumProfilerEvents);
  TFQ_BIND(LiteRtGetProfilerEvents);
#undef TFQ_BIND
  return api;
}

std::string StatusText(int status) {
  static constexpr struct {
    int code;
    const char* text;
  } kTexts[] = {{1, "invalid argument"},      {2, "out of memory"}, {3, "runtime failure"},
                {4, "missing input"},         {5, "unsupported"},   {6, "not found"},
                {8, "wrong version"},         {500, "file error"},  {501, "invalid flatbuffer"},
                {502, "dynamic loading"},     {504, "compilation"}, {1000, "index out of bounds"},
                {4000, "unsupported runtime"}};
  for (const auto& known : kTexts) {
    if (known.code == status) return std::string(known.text) + " (" + std::to_string(status) + ")";
  }
  return "status " + std::to_string(status);
}

void Check(int status, const std::string& what) {
  if (status != 0) throw Error("LiteRT cannot " + what + ": " + StatusText(status));
}

std::string Folder(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, slash);
}

// One input or output of the signature: its handles, and where it stands in the main subgraph.
struct Port {
  size_t signature_index = 0;
  size_t position = 0;
  TensorSpec spec;
  RankedType type = {};
};

class LiteRt : public Runtime {
 public:
  explicit LiteRt(std::unique_ptr<Library> library) : library_(std::move(library)) {
    if (!library_->Has("LiteRtGetCompiledModelEnvironment")) {
      throw Error("the library " + library_->path() +
                  " is LiteRT before 2.2, whose functions take other arguments under the same "
                  "names; known to work are 2.2 and 2.3");
    }
    api_ = BindAll(*library_);
  }

  ~LiteRt() override {
    DestroyCompiled();
    if (options_) api_.LiteRtDestroyOptions(options_);
    if (model_) api_.LiteRtDestroyModel(model_);
    if (environment_) api_.LiteRtDestroyEnvironment(environment_);
  }

  const char* name() const override { return "litert"; }

  std::string version() const override {
    return library_->Has("LiteRtCompiledModelIsNonCpuFullyAccelerated") ? "2.3 or later" : "2.2";
  }

  void Load(const std::string& model) override {
    path_ = model;
    CreateEnvironment(kRuntimeLibraryDir, "");
    LoadModel();
  }

  void Prepare(const Task& task, bool profile) override {
    profile_ = profile;
    Check(api_.LiteRtCreateOptions(&options_), "create options");
    int hardware = kCpu;
    if (!task.delegate.empty()) hardware |= UseDelegate(task.delegate);
    Check(api_.LiteRtSetOptionsHardwareAccelerators(options_, hardware), "choose the hardware");
    AddOptions("xnnpack", std::string("kernel_mode = \"") + Name(task.kernels) +
                              "\"\nnum_threads = " + std::to_string(task.threads) + "\n");
    if (profile) AddOptions("runtime_options_string", "enable_profiling = true\n");
    CreateCompiled();
  }

  const std::vector<TensorSpec>& inputs() const override { return input_specs_; }
  const std::vector<TensorSpec>& outputs() const override { return output_specs_; }

  void SetInput(size_t index, const void* data) override {
    const Port& port = inputs_[index];
    Handle buffer = input_buffers_[port.signature_index];
    void* address = nullptr;
    Check(api_.LiteRtLockTensorBuffer(buffer, &address, kWrite), "lock an input");
    std::memcpy(address, data, port.spec.bytes);
    Check(api_.LiteRtUnlockTensorBuffer(buffer), "unlock an input");
  }

  void Invoke() override {
    const int status =
        api_.LiteRtRunCompiledModel(compiled_, 0, input_buffers_.size(), input_buffers_.data(),
                                    output_buffers_.size(), output_buffers_.data());
    if (status != 0) Check(status, "run the model");
  }

  void GetOutput(size_t index, void* data) override {
    const Port& port = outputs_[index];
    Handle buffer = output_buffers_[port.signature_index];
    void* address = nullptr;
    Check(api_.LiteRtLockTensorBuffer(buffer, &address, kRead), "lock an output");
    std::memcpy(data, address, port.spec.bytes);
    Check(api_.LiteRtUnlockTensorBuffer(buffer), "unlock an output");
  }

  // The C API has no call that resets variable tensors; a model that is compiled again has fresh
  // ones.
  void ResetState() override {
    DestroyCompiled();
    CreateCompiled();
  }

  std::optional<int64_t> model_ops() const override { return static_cast<int64_t>(ops_); }

  std::optional<bool> fully_delegated() const override {
    bool all = false;
    Check(api_.LiteRtCompiledModelIsFullyAccelerated(compiled_, &all), "count delegated operators");
    return all;
  }

  std::vector<std::string> accelerators() const override {
    std::vector<std::string> names;
    size_t count = 0;
    Check(api_.LiteRtGetNumAccelerators(environment_, &count), "count accelerators");
    for (size_t i = 0; i < count; ++i) {
      Handle accelerator = nullptr;
      const char* name = nullptr;
      Check(api_.LiteRtGetAccelerator(environment_, i, &accelerator), "list accelerators");
      Check(api_.LiteRtGetAcceleratorName(accelerator, &name), "name an accelerator");
      names.emplace_back(name);
    }
    return names;
  }

  std::vector<OpEvent> TakeEvents() override {
    int count = 0;
    Check(api_.LiteRtGetNumProfilerEvents(profiler_, &count), "count the profiler's events");
    std::vector<ProfiledEvent> events(static_cast<size_t>(std::max(count, 0)));
    if (count > 0) {
      Check(api_.LiteRtGetProfilerEvents(profiler_, count, events.data()),
            "read the profiler's events");
    }
    std::vector<OpEvent> ops;
    for (const ProfiledEvent& event : events) {
      if (event.type != kPlainOp && event.type != kDelegatedOp) continue;
      OpEvent op;
      op.type = event.tag;
      op.delegated = event.type == kDelegatedOp;
      op.node = static_cast<int64_t>(event.metadata1);
      op.name = op.delegated ? op.type : NodeName(event.metadata1, op.type);
      op.microseconds = static_cast<double>(event.elapsed_us);
      ops.push_back(std::move(op));
    }
    Check(api_.LiteRtResetProfiler(profiler_), "reset the profiler");
    Check(api_.LiteRtStartProfiler(profiler_), "start the profiler");  // the reset stopped it
    return ops;
  }

 private:
  // `folder` is where LiteRT looks for the library that `tag` stands for; empty: nowhere.
  void CreateEnvironment(int32_t tag, const std::string& folder) {
    EnvironmentOption option = {};
    option.tag = tag;
    option.value.type = kAnyText;
    option.value.text = folder.c_str();
    Check(api_.LiteRtCreateEnvironment(folder.empty() ? 0 : 1, &option, &environment_), "start");
  }

  void LoadModel() {
    Check(api_.LiteRtCreateModelFromFile(environment_, path_.c_str(), &model_),
          "load the model " + path_);
    size_t signatures = 0;
    Check(api_.LiteRtGetNumModelSignatures(model_, &signatures), "count the signatures");
    if (signatures == 0) throw Error("the model " + path_ + " has no graph to run");
    Check(api_.LiteRtGetModelSignature(model_, 0, &signature_), "read the signature");
    Check(api_.LiteRtGetSignatureSubgraph(signature_, &subgraph_), "read the graph");
    Check(api_.LiteRtGetNumSubgraphOps(subgraph_, &ops_), "count the operators");
  }

  // The accelerators are found when the environment is made, in the folder that it is given, so a
  // delegate needs a new one.
  int UseDelegate(const std::string& delegate) {
    CheckElf(delegate);
    const bool npu = delegate.find("Dispatch") != std::string::npos;
    const size_t before = accelerators().size();
    api_.LiteRtDestroyModel(model_);
    model_ = nullptr;
    api_.LiteRtDestroyEnvironment(environment_);
    environment_ = nullptr;
    CreateEnvironment(npu ? kDispatchLibraryDir : kRuntimeLibraryDir, Folder(delegate));
    if (accelerators().size() <= before) {
      throw Error("LiteRT takes no accelerator from " + delegate +
                  "; it looks for libLiteRtGpuAccelerator.so and the like in that folder");
    }
    LoadModel();
    return npu ? kNpu : kGpu;
  }

  void AddOptions(const char* identifier, const std::string& payload) {
    Handle opaque = nullptr;
    char* copy = strdup(payload.c_str());
    if (copy == nullptr) throw Error("out of memory");
    Check(api_.LiteRtCreateOpaqueOptions(identifier, copy, std::free, &opaque), "create options");
    Check(api_.LiteRtAddOpaqueOptions(options_, opaque), "add options");
  }

  void CreateCompiled() {
    Check(api_.LiteRtCreateCompiledModel(environment_, model_, options_, &compiled_),
          "prepare the model " + path_);
    FindPorts();
    if (profile_) {
      Check(api_.LiteRtCompiledModelGetProfiler(compiled_, &profiler_), "get the profiler");
      if (profiler_ == nullptr) throw Error("LiteRT has no profiler in this library");
      Check(api_.LiteRtStartProfiler(profiler_), "start the profiler");
    }
  }

  void DestroyCompiled() {
    for (Handle buffer : input_buffers_) api_.LiteRtDestroyTensorBuffer(buffer);
    for (Handle buffer : output_buffers_) api_.LiteRtDestroyTensorBuffer(buffer);
    input_buffers_.clear();
    output_buffers_.clear();
    if (compiled_) api_.LiteRtDestroyCompiledModel(compiled_);
    compiled_ = nullptr;
  }

  // Where `tensor` stands among those of the main subgraph.
  size_t Position(Handle tensor, size_t count, int (*get)(Handle, size_t, Handle*)) const {
    for (size_t i = 0; i < count; ++i) {
      Handle candidate = nullptr;
      Check(get(subgraph_, i, &candidate), "read the graph");
      if (candidate == tensor) return i;
    }
    throw Error("the model's signature names a tensor that is no input or output of its graph");
  }

  Port MakePort(size_t index, const char* name, Handle tensor, const Layout& layout) const {
    Port port;
    port.signature_index = index;
    port.spec.name = name;
    int32_t kind = 0;
    Check(api_.LiteRtGetTensorTypeId(tensor, &kind), "read a tensor");
    if (kind != 0) throw Error("the tensor " + port.spec.name + " has no fixed rank");
    Check(api_.LiteRtGetRankedTensorType(tensor, &port.type), "read a tensor");
    port.type.layout = layout;  // the model may leave a dimension open, the prepared model does not
    const uint32_t rank = layout.rank_and_flags & 0x7f;
    if (rank > 8)
      throw Error("the tensor " + port.spec.name + " has the rank " + std::to_string(rank));
    port.spec.type = port.type.element;
    port.spec.dims.assign(layout.dims, layout.dims + rank);
    try {
      port.spec.bytes = SampleBytes(port.spec.type, port.spec.dims);
    } catch (const Error& error) {
      throw Error("the tensor " + port.spec.name + " cannot be used: " + error.what());
    }
    return port;
  }

  void FindPorts() {
    size_t count = 0, stored = 0;
    inputs_.clear();
    outputs_.clear();
    Check(api_.LiteRtGetNumSignatureInputs(signature_, &count), "count the inputs");
    Check(api_.LiteRtGetNumSubgraphInputs(subgraph_, &stored), "count the inputs");
    for (size_t i = 0; i < count; ++i) {
      const char* name = nullptr;
      Handle tensor = nullptr, requirements = nullptr, buffer = nullptr;
      Layout layout = {};
      Check(api_.LiteRtGetSignatureInputName(signature_, i, &name), "name an input");
      Check(api_.LiteRtGetSignatureInputTensorByIndex(signature_, i, &tensor), "read an input");
      Check(api_.LiteRtGetCompiledModelInputTensorLayout(compiled_, 0, i, &layout),
            "read an input's shape");
      Port port = MakePort(i, name, tensor, layout);
      port.position = Position(tensor, stored, api_.LiteRtGetSubgraphInput);
      Check(api_.LiteRtGetCompiledModelInputBufferRequirements(compiled_, 0, i, &requirements),
            "read what an input needs");
      Check(api_.LiteRtCreateManagedTensorBufferFromRequirements(environment_, &port.type,
                                                                 requirements, &buffer),
            "allocate an input");
      input_buffers_.push_back(buffer);
      inputs_.push_back(std::move(port));
    }
    Check(api_.LiteRtGetNumSignatureOutputs(signature_, &count), "count the outputs");
    Check(api_.LiteRtGetNumSubgraphOutputs(subgraph_, &stored), "count the outputs");
    std::vector<Layout> layouts(count);
    Check(api_.LiteRtGetCompiledModelOutputTensorLayouts(compiled_, 0, count, layouts.data(), true),
          "read the outputs' shapes");
    for (size_t i = 0; i < count; ++i) {
      const char* name = nullptr;
      Handle tensor = nullptr, requirements = nullptr, buffer = nullptr;
      Check(api_.LiteRtGetSignatureOutputName(signature_, i, &name), "name an output");
      Check(api_.LiteRtGetSignatureOutputTensorByIndex(signature_, i, &tensor), "read an output");
      Port port = MakePort(i, name, tensor, layouts[i]);
      port.position = Position(tensor, stored, api_.LiteRtGetSubgraphOutput);
      Check(api_.LiteRtGetCompiledModelOutputBufferRequirements(compiled_, 0, i, &requirements),
            "read what an output needs");
      Check(api_.LiteRtCreateManagedTensorBufferFromRequirements(environment_, &port.type,
                                                                 requirements, &buffer),
            "allocate an output");
      output_buffers_.push_back(buffer);
      outputs_.push_back(std::move(port));
    }
    input_specs_ = Sorted(&inputs_);
    output_specs_ = Sorted(&outputs_);
  }

  static std::vector<TensorSpec> Sorted(std::vector<Port>* ports) {
    std::stable_sort(ports->begin(), ports->end(),
                     [](const Port& a, const Port& b) { return a.position < b.position; });
    std::vector<TensorSpec> specs;
    for (const Port& port : *ports) specs.push_back(port.spec);
    return specs;
  }

  // Name of the first tensor that an operator of the model makes. Nodes beyond the model's
  // operators are those that delegates put in.
  std::string NodeName(uint64_t node, const std::string& otherwise) const {
    Handle op = nullptr, tensor = nullptr;
    const char* name = nullptr;
    if (node >= ops_ || api_.LiteRtGetSubgraphOp(subgraph_, node, &op) != 0 ||
        api_.LiteRtGetOpOutput(op, 0, &tensor) != 0 ||
        api_.LiteRtGetTensorName(tensor, &name) != 0) {
      return otherwise;
    }
    return name;
  }

  std::unique_ptr<Library> library_;
  Api api_ = {};
  std::string path_;
  bool profile_ = false;
  Handle environment_ = nullptr, model_ = nullptr, signature_ = nullptr, subgraph_ = nullptr;
  Handle options_ = nullptr, compiled_ = nullptr, profiler_ = nullptr;
  size_t ops_ = 0;
  std::vector<Port> inputs_, outputs_;  // in the order of the subgraph
  std::vector<TensorSpec> input_specs_, output_specs_;
  std::vector<Handle> input_buffers_, output_buffers_;  // in the order of the signature
};

}  // namespace

std::unique_ptr<Runtime> MakeLiteRt(std::unique_ptr<Library> library) {
  return std::make_unique<LiteRt>(std::move(library));
}

}  // namespace tfq
