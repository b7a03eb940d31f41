/* whole_process.c — runs a command again and again and prints what the kernel says of each run.
 * Why:    a small launcher: a child inherits the peak memory of who spawned it until it executes,
 *         so a large one would report its own. Prints one JSON object of medians.
 * Not:    a shell: the command is given as arguments, its output goes to /dev/null.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { RUNS_MAX = 1000, WARM_UP = 3 };

static double seconds(struct timeval time) {
  return (double)time.tv_sec + (double)time.tv_usec / 1e6;
}

static int by_value(const void* left, const void* right) {
  const double a = *(const double*)left;
  const double b = *(const double*)right;
  return (a > b) - (a < b);
}

static double median(double* values, int count) {
  qsort(values, (size_t)count, sizeof *values, by_value);
  return values[count / 2];
}

int main(int argc, char** argv) {
  if (argc < 3) {
    fprintf(stderr, "usage: whole_process RUNS COMMAND [ARGUMENT ...]\n");
    return 2;
  }
  static double wall[RUNS_MAX], cpu[RUNS_MAX];
  const int runs = atoi(argv[1]) < RUNS_MAX ? atoi(argv[1]) : RUNS_MAX;
  long peak = 0;
  for (int run = -WARM_UP; run < runs; ++run) {
    struct timespec start, end;
    clock_gettime(CLOCK_MONOTONIC, &start);
    const pid_t child = vfork();
    if (child == 0) {
      const int null = open("/dev/null", O_RDWR);
      dup2(null, 1);
      dup2(null, 2);
      execv(argv[2], argv + 2);
      _exit(127);
    }
    int status;
    struct rusage usage;
    wait4(child, &status, 0, &usage);
    clock_gettime(CLOCK_MONOTONIC, &end);
    if (status != 0) {
      fprintf(stderr, "whole_process: %s failed with status %d\n", argv[2], status);
      return 1;
    }
    if (run < 0) continue;
    wall[run] = (double)(end.tv_sec - start.tv_sec) + (double)(end.tv_nsec - start.tv_nsec) / 1e9;
    cpu[run] = seconds(usage.ru_utime) + seconds(usage.ru_stime);
    if (usage.ru_maxrss > peak) peak = usage.ru_maxrss;
  }
  printf("{\"wall_ms\":%.2f,\"cpu_ms\":%.2f,\"peak_kib\":%ld}\n", median(wall, runs) * 1000,
         median(cpu, runs) * 1000, peak);
  return 0;
}
