// SPDX-License-Identifier: Apache-2.0
#include "launcher/mpi_session.hpp"

#include <mpi.h>
#include <pwd.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <sstream>
#include <string>

#include "base/error.hpp"
#include "base/log.hpp"
#include "base/rank_launcher.hpp"

namespace dekoder {

namespace {

/// What is written to stderr during its life, to be shown or left out afterwards.
class HeldStderr {
 public:
  HeldStderr() : file_(std::tmpfile(), std::fclose), stderr_(dup(STDERR_FILENO)) {
    if (file_ && stderr_ >= 0) dup2(fileno(file_.get()), STDERR_FILENO);
  }
  ~HeldStderr() { finish(); }
  HeldStderr(const HeldStderr&) = delete;
  HeldStderr& operator=(const HeldStderr&) = delete;

  /// Ends the holding; returns what was written.
  std::string finish() {
    if (stderr_ < 0) return "";
    std::fflush(stderr);
    dup2(stderr_, STDERR_FILENO);
    close(stderr_);
    stderr_ = -1;
    std::string text;
    if (file_) {
      std::rewind(file_.get());
      for (int c; (c = std::fgetc(file_.get())) != EOF;) text += static_cast<char>(c);
    }
    return text;
  }

 private:
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> file_;
  int stderr_;
};

/// Open MPI does not start without a home directory to look for settings in.
void give_home() {
  if (std::getenv("HOME") != nullptr) return;
  const passwd* user = getpwuid(getuid());
  setenv("HOME", user != nullptr && user->pw_dir != nullptr ? user->pw_dir : "/", 0);
}

/// A limit that keeps MPI from starting without a reason in its text; empty where there is none.
std::string file_size_limit() {
  rlimit limit = {};
  if (getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return "";
  return fmt::format(
      "; the limit of file size (ulimit -f) is {} kB, and MPI shares memory by files of many MB: raise it",
      limit.rlim_cur / 1024);
}

/// MPI's text on one line, without the rules of dashes around it.
std::string one_line(const std::string& text) {
  constexpr std::size_t most = 600;
  std::string line;
  std::istringstream words(text);
  for (std::string word; line.size() < most && words >> word;)
    if (word.find_first_not_of('-') != std::string::npos) line += (line.empty() ? "" : " ") + word;
  return line.empty() ? "it gives no reason" : line;
}

}  // namespace

MpiSession::MpiSession() {
  const int announced = announced_ranks();
  if (announced == 1) return;
  const RankLauncher& launcher = *rank_launcher();
  give_home();
  setenv("OMPI_MCA_mpi_initial_errhandler", "mpi_errors_return", 0);  // else a failing start ends the process
  HeldStderr held;
  int provided = 0;
  const int code = MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided);
  const std::string said = held.finish();
  if (code == MPI_SUCCESS) {
    std::fputs(said.c_str(), stderr);
    MPI_Comm_size(MPI_COMM_WORLD, &size_);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank_);
  }
  if (size_ > 1) return;
  set_log_rank(0);  // no other process may be there to speak
  if (code != MPI_SUCCESS)
    throw ConfigError(
        "{} is {}: the job announces {} ranks, but MPI does not start; mend its settings, or unset {} for a single "
        "process{}; MPI says: {}",
        launcher.ranks, announced, announced, launcher.ranks, file_size_limit(), one_line(said));
  throw ConfigError(
      "{} is {}: the job announces {} ranks but MPI sees 1: they would be {} separate runs; start a single rank, "
      "or unset what is left of a job that has ended; several ranks are started by mpirun, or by srun --mpi=pmix",
      launcher.ranks, announced, announced, announced);
}

MpiSession::~MpiSession() {
  // Alone, MPI has nobody to tell; with variables of a job that has ended Open MPI crashes in MPI_Finalize.
  if (size_ > 1) MPI_Finalize();
}

std::optional<MpiSession::FirstFailure> MpiSession::first_failure(ExitCode own) const {
  int code = static_cast<int>(own), first = code != 0 ? rank_ : size_;
  if (size_ > 1) {
    MPI_Allreduce(MPI_IN_PLACE, &first, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD);
    if (first < size_) MPI_Bcast(&code, 1, MPI_INT, first, MPI_COMM_WORLD);
  }
  if (first == size_) return std::nullopt;
  return FirstFailure{first, static_cast<ExitCode>(code)};
}

void MpiSession::barrier() const {
  if (size_ > 1) MPI_Barrier(MPI_COMM_WORLD);
}

}  // namespace dekoder
