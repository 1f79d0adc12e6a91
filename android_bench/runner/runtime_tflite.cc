#include "runtime_tflite.h"

#include <cstdint>
#include <cstdio>

#include "errors.h"

namespace tfq {
namespace {

using Handle = void*;

struct Api {
  const char* (*TfLiteVersion)();
  Handle (*TfLiteModelCreateFromFile)(const char*);
  void (*TfLiteModelDelete)(Handle);
  Handle (*TfLiteInterpreterOptionsCreate)();
  void (*TfLiteInterpreterOptionsDelete)(Handle);
  void (*TfLiteInterpreterOptionsSetNumThreads)(Handle, int32_t);
  void (*TfLiteInterpreterOptionsAddDelegate)(Handle, Handle);
  Handle (*TfLiteInterpreterCreate)(Handle, Handle);
  void (*TfLiteInterpreterDelete)(Handle);
  int (*TfLiteInterpreterAllocateTensors)(Handle);
  int (*TfLiteInterpreterInvoke)(Handle);
  int (*TfLiteInterpreterResetVariableTensors)(Handle);
  int32_t (*TfLiteInterpreterGetInputTensorCount)(Handle);
  Handle (*TfLiteInterpreterGetInputTensor)(Handle, int32_t);
  int32_t (*TfLiteInterpreterGetOutputTensorCount)(Handle);
  Handle (*TfLiteInterpreterGetOutputTensor)(Handle, int32_t);
  int (*TfLiteTensorType)(Handle);
  int32_t (*TfLiteTensorNumDims)(Handle);
  int32_t (*TfLiteTensorDim)(Handle, int32_t);
  size_t (*TfLiteTensorByteSize)(Handle);
  const char* (*TfLiteTensorName)(Handle);
  int (*TfLiteTensorCopyFromBuffer)(Handle, const void*, size_t);
  int (*TfLiteTensorCopyToBuffer)(Handle, void*, size_t);
};

Api BindAll(const Library& library) {
  Api api;
#define TFQ_BIND(function) library.Bind(#function, &api.function)
  TFQ_BIND(TfLiteVersion);
  TFQ_BIND(TfLiteModelCreateFromFile);
  TFQ_BIND(TfLiteModelDelete);
  TFQ_BIND(TfLiteInterpreterOptionsCreate);
  TFQ_BIND(TfLiteInterpreterOptionsDelete);
  TFQ_BIND(TfLiteInterpreterOptionsSetNumThreads);
  TFQ_BIND(TfLiteInterpreterOptionsAddDelegate);
  TFQ_BIND(TfLiteInterpreterCreate);
  TFQ_BIND(TfLiteInterpreterDelete);
  TFQ_BIND(TfLiteInterpreterAllocateTensors);
  TFQ_BIND(TfLiteInterpreterInvoke);
  TFQ_BIND(TfLiteInterpreterResetVariableTensors);
  TFQ_BIND(TfLiteInterpreterGetInputTensorCount);
  TFQ_BIND(TfLiteInterpreterGetInputTensor);
  TFQ_BIND(TfLiteInterpreterGetOutputTensorCount);
  TFQ_BIND(TfLiteInterpreterGetOutputTensor);
  TFQ_BIND(TfLiteTensorType);
  TFQ_BIND(TfLiteTensorNumDims);
  TFQ_BIND(TfLiteTensorDim);
  TFQ_BIND(TfLiteTensorByteSize);
  TFQ_BIND(TfLiteTensorName);
  TFQ_BIND(TfLiteTensorCopyFromBuffer);
  TFQ_BIND(TfLiteTensorCopyToBuffer);
#undef TFQ_BIND
  return api;
}

// The head of XNNPACK's options; later versions append fields, all of which mean "default" as zero.
struct XnnpackOptions {
  int32_t threads;
  uint32_t flags;
  char later_fields[248];
};
constexpr uint32_t kSignedAndUnsigned8Bit = 1 | 2;

void Check(int status, const std::string& what) {
  if (status != 0) throw Error("TensorFlow Lite cannot " + what);
}

void ReportDelegateError(const char* text) { std::fprintf(stderr, "delegate: %s\n", text); }

class Tflite : public Runtime {
 public:
  explicit Tflite(std::unique_ptr<Library> library)
      : library_(std::move(library)), api_(BindAll(*library_)) {}

  ~Tflite() override {
    if (interpreter_) api_.TfLiteInterpreterDelete(interpreter_);
    if (options_) api_.TfLiteInterpreterOptionsDelete(options_);
    if (model_) api_.TfLiteModelDelete(model_);
    if (delegate_) delete_delegate_(delegate_);
    if (xnnpack_) delete_xnnpack_(xnnpack_);
  }

  const char* name() const override { return "tflite"; }
  std::string version() const override { return api_.TfLiteVersion(); }

  void Load(const std::string& model) override {
    path_ = model;
    model_ = api_.TfLiteModelCreateFromFile(model.c_str());
    if (model_ == nullptr) throw Error("TensorFlow Lite cannot load the model " + model);
  }

  void Prepare(const Task& task, bool profile) override {
    if (profile) {
      throw Error("the classic C API has no profiler; profile with LiteRT (runtime=litert)");
    }
    options_ = api_.TfLiteInterpreterOptionsCreate();
    api_.TfLiteInterpreterOptionsSetNumThreads(options_, task.threads);
    if (!task.delegate.empty()) AddDelegate(task.delegate);
    if (task.kernels == Kernels::kXnnpack) AddXnnpack(task.threads);
    interpreter_ = api_.TfLiteInterpreterCreate(model_, options_);
    if (interpreter_ == nullptr) throw Error("TensorFlow Lite cannot prepare the model " + path_);
    Check(api_.TfLiteInterpreterAllocateTensors(interpreter_), "allocate the tensors of " + path_);
    for (int32_t i = 0; i < api_.TfLiteInterpreterGetInputTensorCount(interpreter_); ++i) {
      inputs_.push_back(Spec(api_.TfLiteInterpreterGetInputTensor(interpreter_, i)));
    }
    for (int32_t i = 0; i < api_.TfLiteInterpreterGetOutputTensorCount(interpreter_); ++i) {
      outputs_.push_back(Spec(api_.TfLiteInterpreterGetOutputTensor(interpreter_, i)));
    }
  }

  const std::vector<TensorSpec>& inputs() const override { return inputs_; }
  const std::vector<TensorSpec>& outputs() const override { return outputs_; }

  void SetInput(size_t index, const void* data) override {
    Handle tensor = api_.TfLiteInterpreterGetInputTensor(interpreter_, static_cast<int32_t>(index));
    Check(api_.TfLiteTensorCopyFromBuffer(tensor, data, inputs_[index].bytes), "set an input");
  }

  void Invoke() override {
    if (api_.TfLiteInterpreterInvoke(interpreter_) != 0) Check(1, "run the model");
  }

  void GetOutput(size_t index, void* data) override {
    Handle tensor =
        api_.TfLiteInterpreterGetOutputTensor(interpreter_, static_cast<int32_t>(index));
    Check(api_.TfLiteTensorCopyToBuffer(tensor, data, outputs_[index].bytes), "read an output");
  }

  void ResetState() override {
    Check(api_.TfLiteInterpreterResetVariableTensors(interpreter_), "reset variable tensors");
  }

  std::vector<OpEvent> TakeEvents() override { return {}; }

 private:
  void AddXnnpack(int threads) {
    Handle (*create)(const XnnpackOptions*) = nullptr;
    library_->Bind("TfLiteXNNPackDelegateCreate", &create);
    library_->Bind("TfLiteXNNPackDelegateDelete", &delete_xnnpack_);
    XnnpackOptions options = {};
    options.threads = threads;
    options.flags = kSignedAndUnsigned8Bit;
    xnnpack_ = create(&options);
    if (xnnpack_ == nullptr) throw Error("TensorFlow Lite cannot create the XNNPACK delegate");
    api_.TfLiteInterpreterOptionsAddDelegate(options_, xnnpack_);
  }

  // A delegate's library has either the entry points of an external delegate or those of the GPU
  // delegate, which takes its defaults for a null pointer.
  void AddDelegate(const std::string& path) {
    delegate_library_ = std::make_unique<Library>(path);
    if (delegate_library_->Has("tflite_plugin_create_delegate")) {
      Handle (*create)(const char* const*, const char* const*, size_t, void (*)(const char*)) =
          nullptr;
      delegate_library_->Bind("tflite_plugin_create_delegate", &create);
      delegate_library_->Bind("tflite_plugin_destroy_delegate", &delete_delegate_);
      delegate_ = create(nullptr, nullptr, 0, ReportDelegateError);
    } else if (delegate_library_->Has("TfLiteGpuDelegateV2Create")) {
      Handle (*create)(const void*) = nullptr;
      delegate_library_->Bind("TfLiteGpuDelegateV2Create", &create);
      delegate_library_->Bind("TfLiteGpuDelegateV2Delete", &delete_delegate_);
      delegate_ = create(nullptr);
    } else {
      throw Error("the library " + path +
                  " is no delegate: it has neither tflite_plugin_create_delegate nor "
                  "TfLiteGpuDelegateV2Create");
    }
    if (delegate_ == nullptr) throw Error("the library " + path + " made no delegate");
    api_.TfLiteInterpreterOptionsAddDelegate(options_, delegate_);
  }

  TensorSpec Spec(Handle tensor) const {
    TensorSpec spec;
    const char* name = api_.TfLiteTensorName(tensor);
    spec.name = name ? name : "";
    spec.type = api_.TfLiteTensorType(tensor);
    for (int32_t i = 0; i < api_.TfLiteTensorNumDims(tensor); ++i) {
      spec.dims.push_back(api_.TfLiteTensorDim(tensor, i));
    }
    try {
      spec.bytes = SampleBytes(spec.type, spec.dims);
    } catch (const Error& error) {
      throw Error("the tensor " + spec.name + " cannot be used: " + error.what());
    }
    if (spec.bytes != api_.TfLiteTensorByteSize(tensor)) {
      throw Error("the tensor " + spec.name + ", " + Written(spec) + ", has " +
                  std::to_string(api_.TfLiteTensorByteSize(tensor)) + " bytes, expected " +
                  std::to_string(spec.bytes));
    }
    return spec;
  }

  std::unique_ptr<Library> library_;
  std::unique_ptr<Library> delegate_library_;
  Api api_;
  std::string path_;
  Handle model_ = nullptr, options_ = nullptr, interpreter_ = nullptr;
  Handle delegate_ = nullptr, xnnpack_ = nullptr;
  void (*delete_delegate_)(Handle) = nullptr;
  void (*delete_xnnpack_)(Handle) = nullptr;
  std::vector<TensorSpec> inputs_, outputs_;
};

}  // namespace

std::unique_ptr<Runtime> MakeTflite(std::unique_ptr<Library> library) {
  return std::make_unique<Tflite>(std::move(library));
}

}  // namespace tfq
