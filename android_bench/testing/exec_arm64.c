/* Preloaded into the shell of an arm64 test device: an arm64 ELF file that is executed runs under qemu-user.

   Without root nothing can be registered with the kernel's binfmt_misc, so the three exec functions that shells and
   their small helpers (env, nohup, setsid, taskset, timeout) call are replaced. QEMU, SYSROOT and CPU come from the
   compiler's command line. Scope: programs found by a path with a slash; an exec made inside qemu is not seen.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern char **environ;

static int is_arm64(const char *path) {
  Elf64_Ehdr header;
  int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return 0;
  ssize_t got = read(file, &header, sizeof header);
  close(file);
  return got == sizeof header && !memcmp(header.e_ident, ELFMAG, SELFMAG) && header.e_machine == EM_AARCH64;
}

int execve(const char *path, char *const arguments[], char *const environment[]) {
  int (*next)(const char *, char *const[], char *const[]) =
      (int (*)(const char *, char *const[], char *const[]))dlsym(RTLD_NEXT, "execve");
  if (access(path, X_OK) != 0 || !is_arm64(path)) return next(path, arguments, environment);
  const char *before[] = {QEMU, "-L", SYSROOT, "-cpu", CPU, "-U", "LD_PRELOAD", "-0", arguments[0], path};
  enum { BEFORE = sizeof before / sizeof *before };
  size_t count = 1;
  while (arguments[count - 1] && arguments[count]) count++;
  const char **all = malloc((BEFORE + count) * sizeof *all);
  if (!all) {
    errno = ENOMEM;
    return -1;
  }
  memcpy(all, before, sizeof before);
  memcpy(all + BEFORE, arguments + 1, (count - 1) * sizeof *all);
  all[BEFORE + count - 1] = NULL;
  int result = next(QEMU, (char *const *)all, environment);
  free(all);
  return result;
}

int execv(const char *path, char *const arguments[]) { return execve(path, arguments, environ); }

int execvp(const char *file, char *const arguments[]) {
  if (strchr(file, '/')) return execve(file, arguments, environ);
  int (*next)(const char *, char *const[]) = (int (*)(const char *, char *const[]))dlsym(RTLD_NEXT, "execvp");
  return next(file, arguments);
}
