#include "results.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "errors.h"

namespace tfq {
namespace {

std::string ReadAll(int file, const std::string& path) {
  std::string text;
  char piece[65536];
  ssize_t got;
  while ((got = read(file, piece, sizeof(piece))) != 0) {
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw SystemError("read", path);
    text.append(piece, static_cast<size_t>(got));
  }
  return text;
}

}  // namespace

std::set<std::string> FinishedTasks(std::string_view text) {
  std::set<std::string> finished;
  for (size_t end; (end = text.find('\n')) != std::string_view::npos; text.remove_prefix(end + 1)) {
    std::string_view line = text.substr(0, end);
    // Names need no escapes in JSON, and the runner writes kind and id first.
    if (line.substr(0, kTaskRecord.size()) != kTaskRecord || line.back() != '}') continue;
    line.remove_prefix(kTaskRecord.size());
    const size_t quote = line.find('"');
    if (quote != std::string_view::npos) finished.emplace(line.substr(0, quote));
  }
  return finished;
}

Results::Results(const std::string& path) : path_(path) {
  file_ = open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (file_ < 0) throw SystemError("write", path);
  struct stat status;
  if (fstat(file_, &status) != 0 || !S_ISREG(status.st_mode)) {
    close(file_);
    throw Error(path + " is no regular file; the results need one");
  }
  struct flock lock = {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  if (fcntl(file_, F_SETLK, &lock) != 0) {
    const bool taken = errno == EACCES || errno == EAGAIN;
    const Error error =
        taken ? Error("another runner writes to " + path) : SystemError("lock", path);
    close(file_);
    throw error;
  }
  try {
    const std::string text = ReadAll(file_, path);
    const size_t whole = text.rfind('\n') == std::string::npos ? 0 : text.rfind('\n') + 1;
    if (whole != text.size() && ftruncate(file_, static_cast<off_t>(whole)) != 0) {
      throw SystemError("cut off the torn last line of", path);
    }
    finished_ = FinishedTasks(std::string_view(text).substr(0, whole));
  } catch (const Error&) {
    close(file_);
    throw;
  }
}

Results::~Results() { close(file_); }

void Results::Append(std::string record) {
  record += '\n';
  for (size_t sent = 0; sent < record.size();) {
    const ssize_t written = write(file_, record.data() + sent, record.size() - sent);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) throw SystemError("write", path_);
    sent += static_cast<size_t>(written);
  }
  // Pipes and some emulated file systems cannot be synchronised, which is no loss of what was
  // written.
  if (fsync(file_) != 0 && errno != EINVAL && errno != ENOSYS) throw SystemError("write", path_);
}

}  // namespace tfq
