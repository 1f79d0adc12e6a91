// Unit tests of the runner's pure parts, and of its child process. No framework: a check that fails
// says where and what, and the program's exit status is the number of failures.

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <limits>
#include <sstream>
#include <string>
#include <vector>

#include "child.h"
#include "device.h"
#include "errors.h"
#include "job.h"
#include "json.h"
#include "library.h"
#include "mapped_file.h"
#include "measure.h"
#include "processors.h"
#include "results.h"
#include "sha256.h"
#include "statistics.h"
#include "tensors.h"

namespace {

using namespace tfq;  // NOLINT: the tests are about nothing else

int failures = 0;

std::string Shown(const std::string& value) { return value; }
std::string Shown(const char* value) { return value; }
template <typename T>
std::string Shown(const T& value) {
  std::ostringstream text;
  text << value;
  return text.str();
}

void ExpectTrue(bool value, const char* what, int line) {
  if (value) return;
  ++failures;
  std::fprintf(stderr, "runner_test.cc:%d: not true: %s\n", line, what);
}

template <typename A, typename B>
void ExpectEqual(const A& got, const B& expected, const char* what, int line) {
  if (got == expected) return;
  ++failures;
  std::fprintf(stderr, "runner_test.cc:%d: %s is %s, expected %s\n", line, what, Shown(got).c_str(),
               Shown(expected).c_str());
}

// Expects an Error whose text holds every one of `parts`.
void ExpectError(const std::function<void()>& work, const std::vector<std::string>& parts,
                 int line) {
  try {
    work();
  } catch (const Error& error) {
    for (const std::string& part : parts) {
      if (std::string(error.what()).find(part) != std::string::npos) continue;
      ++failures;
      std::fprintf(stderr, "runner_test.cc:%d: the error \"%s\" lacks \"%s\"\n", line, error.what(),
                   part.c_str());
    }
    return;
  }
  ++failures;
  std::fprintf(stderr, "runner_test.cc:%d: no error, expected \"%s\"\n", line,
               parts.empty() ? "" : parts[0].c_str());
}

#define EXPECT(condition) ExpectTrue(condition, #condition, __LINE__)
#define EXPECT_EQ(got, expected) ExpectEqual(got, expected, #got, __LINE__)
#define EXPECT_ERROR(work, ...) ExpectError([&] { work; }, {__VA_ARGS__}, __LINE__)

std::string temporary;  // a folder of this run's own

std::string WriteFile(const std::string& name, const std::string& content) {
  const std::string path = temporary + "/" + name;
  std::ofstream(path, std::ios::binary) << content;
  return path;
}

void TestSha256() {
  const auto digest = [](const std::string& text) {
    Sha256 hash;
    hash.Update(text.data(), text.size());
    return hash.HexDigest();
  };
  // FIPS 180-4 and NIST's example values.
  EXPECT_EQ(digest(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(digest("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(digest("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(digest(std::string(1000000, 'a')),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  Sha256 pieces;  // the same stream in pieces of every length around a block
  std::string all;
  for (size_t length = 0; length < 130; ++length) {
    const std::string piece(length, static_cast<char>('a' + length % 26));
    pieces.Update(piece.data(), piece.size());
    all += piece;
  }
  EXPECT_EQ(pieces.HexDigest(), digest(all));
  EXPECT_EQ(FileSha256(WriteFile("abc", "abc")), digest("abc"));
  EXPECT_ERROR(FileSha256(temporary + "/none"), "cannot open", "No such file");
}

void TestStatistics() {
  EXPECT_EQ(NearestRank(10, 0.5), 5u);
  EXPECT_EQ(NearestRank(10, 0.9), 9u);
  EXPECT_EQ(NearestRank(11, 0.9), 10u);
  EXPECT_EQ(NearestRank(1, 0.99), 1u);
  EXPECT_EQ(NearestRank(1000, 0.99), 990u);
  // Published tables of the sign-test interval for the median.
  EXPECT_EQ(IntervalRanks(10, 0.5).low, 2u);
  EXPECT_EQ(IntervalRanks(10, 0.5).high, 9u);
  EXPECT_EQ(IntervalRanks(100, 0.5).low, 40u);
  EXPECT_EQ(IntervalRanks(100, 0.5).high, 61u);
  EXPECT_EQ(IntervalRanks(5, 0.5).low, 0u);  // 1/32 on each side is more than 0.025
  EXPECT_EQ(IntervalRanks(5, 0.5).high, 0u);
  EXPECT_EQ(IntervalRanks(367, 0.99).high, 0u);  // 1 - 0.99^368 >= 0.975 > 1 - 0.99^367
  EXPECT_EQ(IntervalRanks(368, 0.99).high, 368u);
  const Ranks many = IntervalRanks(1000000, 0.5);  // 1.96 * sqrt(n) / 2 = 980 around the middle
  EXPECT(std::abs(static_cast<double>(many.low) - 499020) < 3);
  EXPECT(std::abs(static_cast<double>(many.high) - 500981) < 3);

  std::vector<double> rising;
  for (int i = 1; i <= 100; ++i) rising.push_back(i);
  const Summary summary = Summarize(rising);
  EXPECT_EQ(summary.count, 100u);
  EXPECT_EQ(summary.mean, 50.5);
  EXPECT_EQ(summary.min, 1);
  EXPECT_EQ(summary.max, 100);
  EXPECT_EQ(summary.p50.value, 50);
  EXPECT_EQ(summary.p50.low.value_or(0), 40);
  EXPECT_EQ(summary.p50.high.value_or(0), 61);
  EXPECT_EQ(summary.p90.value, 90);
  EXPECT_EQ(summary.p99.value, 99);
  EXPECT(!summary.p99.high.has_value());
  EXPECT_EQ(summary.drift.value_or(0), 95.0 / 5.0);
  EXPECT(!Summarize(std::vector<double>(19, 1.0)).drift.has_value());
  EXPECT_EQ(Summarize({7.0}).p99.value, 7);
}

void TestJson() {
  EXPECT_EQ(JsonString("a\"b\\c\n\t\x01\x7f"), "\"a\\\"b\\\\c\\u000a\\u0009\\u0001\\u007f\"");
  EXPECT_EQ(JsonString("\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"),
            "\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\"");
  // A lone continuation, an overlong slash, a surrogate, beyond U+10FFFF, and a sequence cut off.
  EXPECT_EQ(JsonString("\x80"), "\"\\ufffd\"");
  EXPECT_EQ(JsonString("\xc0\xaf"), "\"\\ufffd\\ufffd\"");
  EXPECT_EQ(JsonString("\xed\xa0\x80"), "\"\\ufffd\\ufffd\\ufffd\"");
  EXPECT_EQ(JsonString("\xf4\x90\x80\x80"), "\"\\ufffd\\ufffd\\ufffd\\ufffd\"");
  EXPECT_EQ(JsonString("x\xe2\x82"), "\"x\\ufffd\\ufffd\"");
  EXPECT_EQ(JsonString(std::string("\0z", 2)), "\"\\u0000z\"");

  JsonWriter json;
  json.BeginObject().Member("a", 1).Member("b", "two").Key("c").BeginArray();
  json.Number(1.0005, 3).Null().BeginObject().EndObject().Bool(true).EndArray();
  json.Member("d", std::optional<int>()).Member("e", std::numeric_limits<double>::infinity(), 2);
  json.Member("f", std::optional<double>(2.5), 1).Key("g").Raw("[1]").EndObject();
  EXPECT_EQ(json.text(),
            "{\"a\":1,\"b\":\"two\",\"c\":[1.000,null,{},true],\"d\":null,\"e\":null,\"f\":2.5,"
            "\"g\":[1]}");
  JsonWriter large;
  large.Number(-1e308, 3);
  EXPECT_EQ(large.text().size(), 1u + 309 + 4);
}

void TestJob() {
  const std::string head = "tfq-job 1\nlibrary=/l%20b.so\n";
  const std::string task = "task a/1\nmode=latency\nmodel=m%0A%25.tflite\ninputs=i.tensors\n";
  const Job job =
      ParseJob("tfq-job 1\n# comment\n\nlibrary=/x y/lib=.so\nruntime=litert\n" + task +
               "kernels=builtin\nthreads=4\ncpu_mask=f0\nwarmup_s=0.5\nmin_runs=3\nmax_runs=7\n"
               "min_seconds=0\ndeadline_s=1.25\ndelegate=d.so\n" +
               "task b\nmode=outputs\nmodel=m\ninputs=i\noutputs=o\nreset_state=1\n");
  EXPECT_EQ(job.library, "/x y/lib=.so");
  EXPECT(job.runtime == RuntimeKind::kLiteRt);
  EXPECT_EQ(job.tasks.size(), 2u);
  EXPECT_EQ(job.tasks[0].id, "a/1");
  EXPECT_EQ(job.tasks[0].model, "m\n%.tflite");
  EXPECT(job.tasks[0].kernels == Kernels::kBuiltin);
  EXPECT_EQ(job.tasks[0].threads, 4);
  EXPECT_EQ(job.tasks[0].cpu_mask, "f0");
  EXPECT_EQ(job.tasks[0].warmup_s, 0.5);
  EXPECT_EQ(job.tasks[0].min_runs, 3);
  EXPECT_EQ(job.tasks[0].max_runs, 7);
  EXPECT_EQ(job.tasks[0].min_seconds, 0);
  EXPECT_EQ(job.tasks[0].deadline_s, 1.25);
  EXPECT_EQ(job.tasks[0].delegate, "d.so");
  EXPECT(job.tasks[1].mode == Mode::kOutputs);
  EXPECT_EQ(job.tasks[1].outputs, "o");
  EXPECT(job.tasks[1].reset_state);
  EXPECT_EQ(ParseJob(head + task).library, "/l b.so");

  EXPECT_ERROR(ParseJob(""), "line 1", "tfq-job 1");
  EXPECT_ERROR(ParseJob("tfq-job 2\n"), "line 1", "'tfq-job 2'", "'tfq-job 1'");
  EXPECT_ERROR(ParseJob(head), "no task");
  EXPECT_ERROR(ParseJob("tfq-job 1\n" + task), "line 2", "library");
  EXPECT_ERROR(ParseJob(head + task + "threads=2"), "line 7", "newline", "cut off");
  EXPECT_ERROR(ParseJob(head + task + "thread=2\n"), "line 7", "unknown key 'thread'", "threads");
  EXPECT_ERROR(ParseJob(head + "mode=latency\n"), "line 3", "unknown key 'mode'");
  EXPECT_ERROR(ParseJob(head + task + "mode=latency\n"), "line 7", "second 'mode'");
  EXPECT_ERROR(ParseJob(head + task + task), "line 7", "second task 'a/1'");
  EXPECT_ERROR(ParseJob(head + "task a\nmodel=m\ninputs=i\n"), "line 3", "task a", "mode");
  EXPECT_ERROR(ParseJob(head + "task a\nmode=latency\ninputs=i\n"), "line 3", "no model");
  EXPECT_ERROR(ParseJob(head + "task a\nmode=outputs\nmodel=m\ninputs=i\n"), "outputs=PATH");
  EXPECT_ERROR(ParseJob(head + task + "outputs=o\n"), "takes no outputs");
  EXPECT_ERROR(ParseJob(head + "task a b\n"), "line 3", "'a b'", "letters");
  EXPECT_ERROR(ParseJob(head + "task \n"), "line 3", "letters");
  EXPECT_ERROR(ParseJob(head + "task " + std::string(201, 'x') + "\n"), "line 3", "200");
  EXPECT_ERROR(ParseJob(head + "task a\nmode=fast\n"), "line 4", "'fast'",
               "latency or outputs or profile");
  EXPECT_ERROR(ParseJob(head + "what\n"), "line 3", "'what'", "key=value");
  EXPECT_ERROR(ParseJob(head + "a\tb=1\n"), "line 3", "control character");
  EXPECT_ERROR(ParseJob(head + "runtime=auto\r\n"), "line 3", "control character");
  EXPECT_ERROR(ParseJob(head + task + "outputs=\n"), "line 7", "empty");
  EXPECT_ERROR(ParseJob("tfq-job 1\nlibrary=a%2\n"), "line 2", "two hexadecimal digits");
  EXPECT_ERROR(ParseJob("tfq-job 1\nlibrary=a%zz\n"), "line 2", "two hexadecimal digits");
  EXPECT_ERROR(ParseJob("tfq-job 1\nlibrary=a%00b\n"), "line 2", "%00");
  EXPECT_ERROR(ParseJob(head + "x=" + std::string(8191, 'y') + "\n"), "line 3", "8193", "8192");
  for (const char* bad : {"threads=0",
                          "threads=1025",
                          "threads=-1",
                          "threads=2x",
                          "threads=",
                          "threads= 2",
                          "threads=99999999999999999999",
                          "warmup_s=-1",
                          "warmup_s=1e3",
                          "warmup_s=nan",
                          "warmup_s=.",
                          "warmup_s=1.2.3",
                          "warmup_s=86401",
                          "deadline_s=0",
                          "min_runs=0",
                          "max_runs=1000001",
                          "reset_state=2",
                          "cpu_mask=0",
                          "cpu_mask=",
                          "cpu_mask=xyz",
                          "kernels=Xnnpack",
                          "min_seconds=",
                          "max_runs=1"}) {
    EXPECT_ERROR(ParseJob(head + task + bad + "\n"), "line ", "expected");
  }
  EXPECT_ERROR(ParseJob(head + task + "cpu_mask=" + std::string(257, 'f') + "\n"), "256");
  std::string many = head;
  for (int i = 0; i <= 10000; ++i) {
    many += "task t" + std::to_string(i) + "\nmode=latency\nmodel=m\ninputs=i\n";
  }
  EXPECT_ERROR(ParseJob(many), "10000");
}

void TestMasks() {
  const auto written = [](const std::string& mask) { return MaskText(MaskProcessors(mask)); };
  EXPECT_EQ(written("f0"), "f0");
  EXPECT_EQ(written("0x00A5"), "a5");
  EXPECT_EQ(written("80000000000000000000000000000001"), "80000000000000000000000000000001");
  EXPECT_EQ(MaskProcessors("f0").size(), 4u);
  EXPECT_EQ(MaskProcessors("f0")[0], 4);
  EXPECT_EQ(MaskText({}), "0");
  EXPECT(!AllowedProcessors().empty());
}

// A container of the given parts, as FORMAT.md writes it.
std::string Number(uint64_t value, int bytes) {
  std::string text;
  for (int i = 0; i < bytes; ++i) text += static_cast<char>(value >> (8 * i));
  return text;
}

std::string Entry(const std::string& name, int32_t type, const std::vector<int32_t>& dims,
                  uint64_t offset) {
  std::string text = Number(name.size(), 4) + name + Number(static_cast<uint32_t>(type), 4) +
                     Number(dims.size(), 4);
  for (int32_t dim : dims) text += Number(static_cast<uint32_t>(dim), 4);
  return text + Number(offset, 8);
}

TensorTable Parse(const std::string& text) {
  const std::vector<uint8_t> exact(text.begin(), text.end());  // no byte behind the end is there
  return ParseTensors(exact.data(), exact.size());
}

void TestTensors() {
  const auto head = [](uint64_t samples, uint32_t count) {
    return "TFQT" + Number(1, 4) + Number(samples, 8) + Number(count, 4);
  };
  const auto padded = [](std::string text, size_t size) {
    text.resize(size, '\0');
    return text;
  };
  const std::string two =
      padded(head(3, 2) + Entry("a", 9, {1, 5}, 128) + Entry("", 1, {}, 192), 204);
  const TensorTable table = Parse(two);
  EXPECT_EQ(table.samples, 3u);
  EXPECT_EQ(table.tensors.size(), 2u);
  EXPECT_EQ(table.tensors[0].spec.name, "a");
  EXPECT_EQ(table.tensors[0].spec.bytes, 5u);
  EXPECT_EQ(table.tensors[1].offset, 192u);
  EXPECT_EQ(table.tensors[1].spec.bytes, 4u);
  EXPECT_EQ(Written(table.tensors[0].spec), "int8 [1, 5]");

  for (size_t length = 0; length < two.size(); ++length) {  // truncated anywhere
    EXPECT_ERROR(Parse(two.substr(0, length)), "");
  }
  EXPECT_ERROR(Parse(two + '\0'), "205", "204");
  EXPECT_ERROR(Parse("PK\x03\x04" + two.substr(4)), "TFQT");
  const auto one = [&](uint64_t samples, const std::string& entry) {
    return padded(head(samples, 1) + entry, 128);
  };
  EXPECT_ERROR(Parse("TFQT" + Number(2, 4) + two.substr(8)), "version is 2");
  EXPECT_ERROR(Parse(one(0, Entry("a", 9, {1}, 64))), "samples is 0");
  EXPECT_ERROR(Parse(one(~0ull, Entry("a", 9, {1}, 64))), "samples");
  EXPECT_ERROR(Parse(head(1, 0)), "number of tensors is 0");
  EXPECT_ERROR(Parse(head(1, 1025)), "number of tensors is 1025");
  EXPECT_ERROR(Parse(head(1, 1) + Number(4097, 4)), "name is 4097");
  EXPECT_ERROR(Parse(head(1, 1) + Number(0xffffffff, 4)), "4294967295");
  EXPECT_ERROR(Parse(one(1, Entry("a", 5, {1}, 64))), "type 5", "no fixed size");
  EXPECT_ERROR(Parse(one(1, Entry("a", -1, {1}, 64))), "type -1");
  EXPECT_ERROR(Parse(one(1, Entry("a", 9, std::vector<int32_t>(9, 1), 64))), "rank is 9");
  EXPECT_ERROR(Parse(one(1, Entry("a", 9, {0}, 64))), "dimension is 0");
  EXPECT_ERROR(Parse(one(1, Entry("a", 9, {-1}, 64))), "dimension is -1");
  EXPECT_ERROR(Parse(one(1, Entry("a", 9, std::vector<int32_t>(8, 0x7fffffff), 64))), "larger");
  EXPECT_ERROR(Parse(one(1ull << 62, Entry("a", 13, {4}, 64))), "larger");
  EXPECT_ERROR(Parse(one(1, Entry("a", 9, {1}, 65))), "byte 65", "expected 64");
  EXPECT_ERROR(Parse(one(1, Entry("a", 9, {1}, 0))), "byte 0", "expected 64");
  EXPECT_ERROR(Parse(one(1, Entry("a", 9, {1}, ~0ull))), "byte 18446744073709551615");
  EXPECT_ERROR(Parse(one(65, Entry("a", 9, {1}, 64))), "65 bytes", "cut off");

  // What the writer writes is what the parser reads.
  const std::string path = temporary + "/written.tensors";
  {
    TensorWriter writer(path, {table.tensors[0].spec, table.tensors[1].spec}, 2);
    for (size_t sample = 0; sample < 2; ++sample) {
      writer.Write(1, sample, sample ? "5678" : "1234");
      writer.Write(0, sample, sample ? "fghij" : "abcde");
    }
    EXPECT(access(path.c_str(), F_OK) != 0);  // not before it is whole
    Sha256 expected;
    expected.Update("abcdefghij12345678", 18);
    EXPECT_EQ(writer.Finish(), expected.HexDigest());
  }
  const MappedFile file(path);
  const TensorTable written = ParseTensors(file.data(), file.size());
  EXPECT_EQ(written.samples, 2u);
  EXPECT(std::memcmp(file.data() + written.tensors[0].offset, "abcdefghij", 10) == 0);
  EXPECT(std::memcmp(file.data() + written.tensors[1].offset, "12345678", 8) == 0);
  { TensorWriter abandoned(temporary + "/abandoned.tensors", {table.tensors[0].spec}, 2); }
  EXPECT(access((temporary + "/abandoned.tensors.part").c_str(), F_OK) != 0);
  EXPECT_ERROR(TensorWriter("/nowhere/x", {table.tensors[0].spec}, 1), "cannot write");
  EXPECT_ERROR(MappedFile(WriteFile("empty", "")), "0 bytes");
  EXPECT_ERROR(MappedFile{temporary}, "no regular file");
}

void TestBinding() {
  const auto spec = [](const char* name, int32_t type, int32_t size) {
    return TensorSpec{name, type, {1, size}, SampleBytes(type, {1, size})};
  };
  const auto stored = [&](const char* name, int32_t type, int32_t size) {
    return StoredTensor{spec(name, type, size), 0};
  };
  const std::vector<TensorSpec> model = {spec("serving_default_x:0", 1, 3), spec("y", 2, 3)};
  EXPECT_EQ(BindInputs(model, {stored("y", 2, 3), stored("x", 1, 3)})[0], 1u);
  EXPECT_EQ(BindInputs(model, {stored("p", 1, 3), stored("q", 2, 3)})[0], 0u);
  EXPECT_EQ(BindInputs(model, {stored("y", 1, 3), stored("q", 2, 3)})[1], 1u);  // not all are found
  EXPECT_ERROR(BindInputs(model, {stored("x", 1, 3)}), "1 tensors", "2 inputs");
  EXPECT_ERROR(BindInputs(model, {stored("x", 9, 3), stored("y", 2, 3)}), "float32 [1, 3]",
               "int8 [1, 3]", "12 bytes", "3 bytes");
  EXPECT_ERROR(BindInputs(model, {stored("x", 1, 4), stored("y", 2, 3)}), "12 bytes", "16 bytes");
}

void TestLibraries() {
  std::string elf(64, '\0');
  elf.replace(0, 5,
              "\x7f"
              "ELF\x02");
  elf[18] = static_cast<char>(0xf3);  // RISC-V
  EXPECT_ERROR(Library(WriteFile("riscv.so", elf)), "ELF machine 243, 64 bits", CompiledAbi());
  EXPECT_ERROR(Library(WriteFile("text.so", "not a library at all")), "no ELF library");
  EXPECT_ERROR(Library(WriteFile("short.so",
                                 "\x7f"
                                 "ELF")),
               "no ELF library");
  EXPECT_ERROR(Library(temporary + "/none.so"), "cannot open the library", "No such file");
  for (uint16_t machine : {3, 40, 62, 183}) {  // the right machine, and nothing behind the header
    for (char bits : {'\x01', '\x02'}) {
      elf[4] = bits;
      elf[18] = static_cast<char>(machine);
      EXPECT_ERROR(Library(WriteFile("hollow.so", elf)), "hollow.so");
    }
  }
}

void TestDevice() {
  EXPECT_EQ(Field("a : 1\nmodel name\t: x y \n", "model name").value_or(""), "x y");
  EXPECT(!Field("VmHWMx: 1\n", "VmHWM").has_value());
  EXPECT(!Field("", "a").has_value());
  const MemoryUse memory = ReadMemory();
  EXPECT(memory.peak_kb.value_or(0) > 0);
  EXPECT(memory.resident_kb.value_or(0) <= memory.peak_kb.value_or(0));
  EXPECT_EQ(DeviceState({0}).substr(0, 24), "{\"frequencies_khz\":{\"0\":");
}

void TestResults() {
  const std::string record = std::string(kTaskRecord) + "a\",\"x\":1}";
  EXPECT_EQ(FinishedTasks(record + "\n{\"kind\":\"machine\"}\n\n" + record).size(), 1u);
  EXPECT_EQ(FinishedTasks(record).size(), 0u);  // no newline: torn
  EXPECT_EQ(FinishedTasks(std::string(kTaskRecord) + "a\n}\n").size(), 0u);
  const std::string path = temporary + "/results.jsonl";
  WriteFile("results.jsonl", record + "\n{\"kind\":\"ta");
  {
    Results results(path);
    EXPECT_EQ(results.finished().count("a"), 1u);
    results.Append("{}");
  }
  std::stringstream content;
  content << std::ifstream(path).rdbuf();
  EXPECT_EQ(content.str(), record + "\n{}\n");
  EXPECT_ERROR(Results("/nowhere/results.jsonl"), "cannot write");
  EXPECT_ERROR(Results("/dev/zero"), "no regular file");
}

void TestChildren() {
  HandleSignals();
  const auto run = [](std::function<std::string(const Stage&)> work, double deadline_s = 30) {
    return RunInChild(work, deadline_s);
  };
  const ChildEnd good = run([](const Stage& stage) {
    stage("one");
    stage("two");
    return std::string(1 << 20, 'x');
  });
  EXPECT(good.ending == Ending::kResult);
  EXPECT_EQ(good.text.size(), 1u << 20);
  EXPECT_EQ(good.stage, "two");
  const ChildEnd bad = run([](const Stage& stage) -> std::string {
    stage("one");
    std::fprintf(stdout, "to standard output\n");
    std::fflush(stdout);
    throw Error("what went wrong");
  });
  EXPECT(bad.ending == Ending::kError);
  EXPECT_EQ(bad.text, "what went wrong");
  EXPECT_EQ(bad.output_tail, "to standard output\n");
  const ChildEnd crash = run([](const Stage& stage) -> std::string {
    stage("deep");
    signal(SIGSEGV, SIG_DFL);  // a sanitizer would catch it
    raise(SIGSEGV);
    return "";
  });
  EXPECT(crash.ending == Ending::kSignal);
  EXPECT_EQ(crash.code, SIGSEGV);
  EXPECT_EQ(crash.stage, "deep");
  const ChildEnd left = run([](const Stage&) -> std::string {
    for (int i = 0; i < 1000; ++i) std::fprintf(stderr, "%04d\n", i);
    _exit(7);
  });
  EXPECT(left.ending == Ending::kExit);
  EXPECT_EQ(left.code, 7);
  EXPECT_EQ(left.output_tail.size(), 2000u);
  EXPECT_EQ(left.output_tail.substr(1995), "0999\n");
  const ChildEnd hung = run(
      [](const Stage& stage) -> std::string {
        stage("asleep");
        if (fork() == 0) pause();  // a process of its own that holds the pipes open
        signal(SIGTERM, SIG_IGN);
        for (;;) pause();
      },
      0.2);
  EXPECT(hung.ending == Ending::kTimeout);
  EXPECT_EQ(hung.stage, "asleep");
  const ChildEnd orphaned = run([](const Stage&) {
    if (fork() == 0) pause();
    return std::string("done");
  });
  EXPECT(orphaned.ending == Ending::kResult);
  EXPECT_EQ(orphaned.text, "done");
  EXPECT_EQ(StopSignal(), 0);
  const pid_t runner = getpid();
  const ChildEnd stopped = run([runner](const Stage&) -> std::string {
    kill(runner, SIGTERM);
    for (;;) pause();
  });
  EXPECT(stopped.ending == Ending::kStopped);
  EXPECT_EQ(StopSignal(), SIGTERM);
}

}  // namespace

int main() {
  const char* folder = std::getenv("TMPDIR");
  temporary = std::string(folder ? folder : "/tmp") + "/runner_test.XXXXXX";
  if (mkdtemp(temporary.data()) == nullptr) {
    std::perror(temporary.c_str());
    return 1;
  }
  TestSha256();
  TestStatistics();
  TestJson();
  TestJob();
  TestMasks();
  TestTensors();
  TestBinding();
  TestLibraries();
  TestDevice();
  TestResults();
  TestChildren();
  for (const char* name : {"abc", "written.tensors", "empty", "riscv.so", "text.so", "short.so",
                           "hollow.so", "results.jsonl"}) {
    unlink((temporary + "/" + name).c_str());
  }
  rmdir(temporary.c_str());
  std::fprintf(stderr, "%s\n", failures ? "FAILED" : "all checks passed");
  return failures ? 1 : 0;
}
