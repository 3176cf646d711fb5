#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/metrics_internal.h"
#include "base/str.h"

static double seconds_of(clockid_t id)
{
    struct timespec now;
    if (clock_gettime(id, &now) != 0)
        return 0;
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

// The blank-separated field of text, counted from 0.
static double number_at(struct str text, unsigned index)
{
    struct str word = STR("");
    for (unsigned i = 0; i <= index; i++)
        word = str_cut(&text, ' ');
    uint64_t value;
    return str_to_u64(word, &value) ? (double)value : 0;
}

static void read_stat(struct metrics_process *out)
{
    char line[1024];
    FILE *file = fopen("/proc/self/stat", "re");
    if (file == NULL)
        return;
    size_t len = fread(line, 1, sizeof(line), file);
    (void)fclose(file); // was only read

    // The second field is the program's name in brackets, which may itself hold blanks and
    // brackets: count from behind the last one. The field after it is the third.
    const char *end = memrchr(line, ')', len);
    if (end == NULL || (size_t)(end - line) + 2 >= len)
        return;
    struct str rest = {end + 2, len - (size_t)(end + 2 - line)};
    double ticks_per_second = (double)sysconf(_SC_CLK_TCK);
    out->threads = number_at(rest, 20 - 3);
    double started_after_boot = number_at(rest, 22 - 3) / ticks_per_second;
    out->virtual_bytes = number_at(rest, 23 - 3);
    out->resident_bytes = number_at(rest, 24 - 3) * (double)sysconf(_SC_PAGESIZE);
    double boot_time = seconds_of(CLOCK_REALTIME) - seconds_of(CLOCK_BOOTTIME);
    out->start_time_seconds = boot_time + started_after_boot;
}

static double count_open_files(void)
{
    DIR *folder = opendir("/proc/self/fd");
    if (folder == NULL)
        return 0;
    double count = -1; // without the one that this walk holds
    // readdir is safe: the folder is this thread's own.
    for (const struct dirent *entry; (entry = readdir(folder)) != NULL;) { // NOLINT
        if (entry->d_name[0] != '.')
            count++;
    }
    (void)closedir(folder); // was only read
    return count;
}

void metrics_process_read(struct metrics_process *out)
{
    *out = (struct metrics_process){0};
    out->cpu_seconds = seconds_of(CLOCK_PROCESS_CPUTIME_ID);
    out->open_fds = count_open_files();
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
        out->max_fds = (double)limit.rlim_cur;
    read_stat(out);
}
