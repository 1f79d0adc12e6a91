#include "measure.h"

#include <algorithm>
#include <map>
#include <memory>
#include <numeric>
#include <tuple>

#include "clock.h"
#include "device.h"
#include "errors.h"
#include "json.h"
#include "mapped_file.h"
#include "processors.h"
#include "runtime.h"
#include "sha256.h"
#include "statistics.h"

namespace tfq {
namespace {

// Samples that a latency measurement cycles over: enough to be no special case, few enough to
// change neither peak memory nor what is in the caches by more than the model itself.
constexpr size_t kCycledBytes = 4 << 20;

// A model that is ready to run, its inputs, and how long it took to get there.
struct Session {
  std::unique_ptr<Runtime> runtime;
  std::unique_ptr<MappedFile> file;
  TensorTable table;
  std::vector<size_t> bound;  // tensor of the container for every input
  std::vector<int> processors;
  std::string model_sha256;
  std::string device_before;
  MemoryUse memory_before, memory_opened;
  double open_s = 0, load_s = 0, prepare_s = 0;

  void SetSample(size_t sample) const {
    for (size_t i = 0; i < bound.size(); ++i) {
      const StoredTensor& tensor = table.tensors[bound[i]];
      runtime->SetInput(i, file->data() + tensor.offset + sample * tensor.spec.bytes);
    }
  }
};

std::unique_ptr<Session> Open(const Job& job, const Task& task, const Stage& stage) {
  auto session = std::make_unique<Session>();
  stage("inputs");
  if (!task.cpu_mask.empty()) BindToProcessors(MaskProcessors(task.cpu_mask));
  session->processors = AllowedProcessors();
  session->model_sha256 = FileSha256(task.model);
  session->file = std::make_unique<MappedFile>(task.inputs);
  try {
    session->table = ParseTensors(session->file->data(), session->file->size());
  } catch (const Error& error) {
    throw Error("the inputs " + task.inputs + " cannot be used: " + error.what());
  }
  session->device_before = DeviceState(session->processors);
  session->memory_before = ReadMemory();

  stage("open_library");
  double start = Now();
  session->runtime = OpenRuntime(job.library, job.runtime);
  session->open_s = Now() - start;
  session->memory_opened = ReadMemory();

  stage("load");
  start = Now();
  session->runtime->Load(task.model);
  session->load_s = Now() - start;

  stage("prepare");
  start = Now();
  session->runtime->Prepare(task, task.mode == Mode::kProfile);
  session->prepare_s = Now() - start;
  session->bound = BindInputs(session->runtime->inputs(), session->table.tensors);
  return session;
}

void WriteSpecs(std::string_view key, const std::vector<TensorSpec>& specs, JsonWriter* json) {
  json->Key(key).BeginArray();
  for (const TensorSpec& spec : specs) {
    json->BeginObject().Member("name", std::string_view(spec.name));
    json->Member("type", std::string_view(TypeName(spec.type)));
    json->Key("shape").BeginArray();
    for (int32_t dim : spec.dims) json->Integer(dim);
    json->EndArray().EndObject();
  }
  json->EndArray();
}

// What every mode tells about the model and how it is run.
void WriteSession(const Session& session, const Task& task, JsonWriter* json) {
  const Runtime& runtime = *session.runtime;
  json->Member("runtime", runtime.name());
  json->Member("runtime_version", std::string_view(runtime.version()));
  json->Member("model_sha256", std::string_view(session.model_sha256));
  json->Member("samples", session.table.samples);
  json->Member("cpu_mask_asked", std::string_view(task.cpu_mask));
  json->Member("cpu_mask", std::string_view(MaskText(session.processors)));
  json->Key("accelerators").BeginArray();
  for (const std::string& name : runtime.accelerators()) json->String(name);
  json->EndArray();
  json->Member("model_ops", runtime.model_ops());
  json->Member("fully_delegated", runtime.fully_delegated());
  WriteSpecs("inputs", runtime.inputs(), json);
  WriteSpecs("outputs", runtime.outputs(), json);
}

void WriteQuantile(std::string_view key, const Quantile& quantile, JsonWriter* json) {
  json->Key(key).BeginObject().Member("value", quantile.value, 3);
  json->Member("low", quantile.low, 3).Member("high", quantile.high, 3).EndObject();
}

// SHA-256 over all outputs of the run that was last, in order.
std::string OutputSha256(Runtime* runtime) {
  Sha256 hash;
  for (size_t i = 0; i < runtime->outputs().size(); ++i) {
    std::vector<uint8_t> data(runtime->outputs()[i].bytes);
    runtime->GetOutput(i, data.data());
    hash.Update(data.data(), data.size());
  }
  return hash.HexDigest();
}

double TimedRun(Runtime* runtime) {
  const double start = Now();
  runtime->Invoke();
  return Now() - start;
}

void MeasureLatency(const Session& session, const Task& task, const Stage& stage,
                    JsonWriter* json) {
  Runtime* runtime = session.runtime.get();
  size_t sample_bytes = 0;
  for (const TensorSpec& input : runtime->inputs()) sample_bytes += input.bytes;
  const size_t cycled =
      std::min(session.table.samples, std::max<size_t>(1, kCycledBytes / sample_bytes));

  stage("first_run");
  session.SetSample(0);
  const double first_s = TimedRun(runtime);
  const std::string output_sha256 = OutputSha256(runtime);

  stage("warmup");
  size_t warmup_runs = 0;
  for (const double start = Now(); Now() - start < task.warmup_s; ++warmup_runs) {
    session.SetSample(warmup_runs % cycled);
    runtime->Invoke();
  }

  stage("timed");
  std::vector<double> latencies;
  latencies.reserve(static_cast<size_t>(task.max_runs));
  const double start = Now();
  const size_t least = static_cast<size_t>(task.min_runs),
               most = static_cast<size_t>(task.max_runs);
  while (latencies.size() < least ||
         (latencies.size() < most && Now() - start < task.min_seconds)) {
    session.SetSample(latencies.size() % cycled);
    latencies.push_back(TimedRun(runtime) * 1e6);
  }
  const double timed_s = Now() - start;

  stage("report");
  const MemoryUse memory = ReadMemory();
  json->Member("open_library_ms", session.open_s * 1e3, 3);
  json->Member("load_ms", session.load_s * 1e3, 3);
  json->Member("prepare_ms", session.prepare_s * 1e3, 3);
  json->Member("first_run_us", first_s * 1e6, 3);
  json->Member("output_sha256", std::string_view(output_sha256));
  json->Member("warmup_runs", warmup_runs).Member("samples_cycled", cycled);
  const Summary summary = Summarize(latencies);
  json->Member("runs", summary.count).Member("timed_s", timed_s, 6);
  json->Key("latency_us").BeginObject();
  WriteQuantile("p50", summary.p50, json);
  WriteQuantile("p90", summary.p90, json);
  WriteQuantile("p99", summary.p99, json);
  json->Member("mean", summary.mean, 3).Member("min", summary.min, 3);
  json->Member("max", summary.max, 3).Member("drift", summary.drift, 4).EndObject();
  json->Key("memory").BeginObject();
  WriteMemory("before", session.memory_before, json);
  WriteMemory("library_opened", session.memory_opened, json);
  WriteMemory("after", memory, json);
  json->EndObject();
  json->Key("device_before").Raw(session.device_before);
  json->Key("device_after").Raw(DeviceState(session.processors));
  json->Key("latencies_us").BeginArray();
  for (double latency : latencies) json->Number(latency, 3);
  json->EndArray();
}

void KeepOutputs(const Session& session, const Task& task, const Stage& stage, JsonWriter* json) {
  Runtime* runtime = session.runtime.get();
  stage("outputs");
  const std::vector<TensorSpec> outputs = runtime->outputs();
  TensorWriter writer(task.outputs, outputs, session.table.samples);
  std::vector<uint8_t> data;
  std::string first_sha256;
  const double start = Now();
  for (size_t sample = 0; sample < session.table.samples; ++sample) {
    if (task.reset_state && sample > 0) runtime->ResetState();
    session.SetSample(sample);
    runtime->Invoke();
    if (sample == 0) first_sha256 = OutputSha256(runtime);
    for (size_t i = 0; i < outputs.size(); ++i) {
      data.resize(outputs[i].bytes);
      runtime->GetOutput(i, data.data());
      writer.Write(i, sample, data.data());
    }
  }
  const double seconds = Now() - start;
  stage("write");
  json->Member("outputs_sha256", std::string_view(writer.Finish()));
  json->Member("output_sha256", std::string_view(first_sha256));
  json->Member("outputs_s", seconds, 6);
}

// The same operator in every run: its kind, its number and how often the same came before it.
using OpKey = std::tuple<bool, std::string, int64_t, int>;

struct OpTimes {
  std::string name;
  std::vector<double> microseconds;
};

// Nodes that stand for a delegate's part of the model. Their time is that of the operators inside,
// which are listed themselves.
bool IsDelegateNode(const OpEvent& event) {
  return !event.delegated && event.type.find("Delegate") != std::string::npos;
}

void ProfileOps(const Session& session, const Task& task, const Stage& stage, JsonWriter* json) {
  Runtime* runtime = session.runtime.get();
  stage("warmup");
  session.SetSample(0);
  runtime->Invoke();
  for (const double start = Now(); Now() - start < task.warmup_s;) {
    runtime->Invoke();
    runtime->TakeEvents();
  }
  runtime->TakeEvents();

  stage("profile");
  std::vector<OpKey> order;
  std::map<OpKey, OpTimes> times;
  size_t runs = 0;
  const double start = Now();
  while (runs < static_cast<size_t>(task.min_runs) ||
         (runs < static_cast<size_t>(task.max_runs) && Now() - start < task.min_seconds)) {
    session.SetSample(runs % session.table.samples);
    runtime->Invoke();
    ++runs;
    std::map<std::tuple<bool, std::string, int64_t>, int> seen;
    for (const OpEvent& event : runtime->TakeEvents()) {
      if (IsDelegateNode(event)) continue;
      const int repeat = seen[{event.delegated, event.type, event.node}]++;
      const OpKey key{event.delegated, event.type, event.node, repeat};
      const auto [at, added] = times.try_emplace(key);
      if (added) {
        at->second.name = event.name;
        order.push_back(key);
      }
      at->second.microseconds.push_back(event.microseconds);
    }
  }

  stage("report");
  if (order.empty()) throw Error("the runtime's profiler told of no operator");
  int64_t plain = 0;
  for (const OpKey& key : order) plain += !std::get<0>(key) && std::get<3>(key) == 0;
  const std::optional<int64_t> all = runtime->model_ops();
  json->Member("runs", runs).Member("plain_ops", plain);
  json->Member("delegated_ops", all ? std::optional<int64_t>(*all - plain) : std::nullopt);
  json->Key("ops").BeginArray();
  for (size_t i = 0; i < order.size(); ++i) {
    const OpTimes& op = times[order[i]];
    const double total = std::accumulate(op.microseconds.begin(), op.microseconds.end(), 0.0);
    const size_t count = op.microseconds.size();
    json->BeginObject().Member("index", i).Member("name", std::string_view(op.name));
    json->Member("type", std::string_view(std::get<1>(order[i])));
    json->Member("delegated", std::get<0>(order[i])).Member("node", std::get<2>(order[i]));
    json->Member("p50_us", Summarize(op.microseconds).p50.value, 3);
    json->Member("mean_us", total / static_cast<double>(count), 3);
    json->Member("runs", count).EndObject();
  }
  json->EndArray();
}

// Converters wrap the user's names of inputs; signatures carry them bare.
std::string_view BareName(std::string_view name) {
  constexpr std::string_view kPrefix = "serving_default_", kSuffix = ":0";
  if (name.substr(0, kPrefix.size()) == kPrefix) name.remove_prefix(kPrefix.size());
  if (name.size() >= kSuffix.size() && name.substr(name.size() - kSuffix.size()) == kSuffix) {
    name.remove_suffix(kSuffix.size());
  }
  return name;
}

}  // namespace

std::vector<size_t> BindInputs(const std::vector<TensorSpec>& model,
                               const std::vector<StoredTensor>& stored) {
  if (model.size() != stored.size()) {
    throw Error("the container has " + std::to_string(stored.size()) +
                " tensors, and the model has " + std::to_string(model.size()) + " inputs");
  }
  std::vector<size_t> bound;
  for (const TensorSpec& input : model) {
    for (size_t i = 0; i < stored.size(); ++i) {
      const std::string& name = stored[i].spec.name;
      const bool taken = std::find(bound.begin(), bound.end(), i) != bound.end();
      if (!taken && (name == input.name || name == BareName(input.name))) {
        bound.push_back(i);
        break;
      }
    }
  }
  if (bound.size() != model.size()) {
    bound.resize(model.size());
    std::iota(bound.begin(), bound.end(), 0);
  }
  for (size_t i = 0; i < model.size(); ++i) {
    const TensorSpec& got = stored[bound[i]].spec;
    if (got.type != model[i].type || got.bytes != model[i].bytes) {
      throw Error("the input " + model[i].name + " takes " + Written(model[i]) + ", " +
                  std::to_string(model[i].bytes) + " bytes, and the container's " + got.name +
                  " is " + Written(got) + ", " + std::to_string(got.bytes) + " bytes");
    }
  }
  return bound;
}

std::string Measure(const Job& job, const Task& task, const Stage& stage) {
  const std::unique_ptr<Session> session = Open(job, task, stage);
  JsonWriter json;
  json.BeginObject();
  WriteSession(*session, task, &json);
  switch (task.mode) {
    case Mode::kLatency:
      MeasureLatency(*session, task, stage, &json);
      break;
    case Mode::kOutputs:
      KeepOutputs(*session, task, stage, &json);
      break;
    case Mode::kProfile:
      ProfileOps(*session, task, stage, &json);
      break;
  }
  json.EndObject();
  return json.text();
}

}  // namespace tfq
