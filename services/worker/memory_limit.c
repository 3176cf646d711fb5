#include "worker/memory_limit.h"

#include <stdio.h>
#include <sys/sysinfo.h>

#include "base/str.h"

enum { PART = 5, PARTS = 4, TEXT_SIZE = 64 };

// The number in a file of the control group; UINT64_MAX: there is none, or it says "max".
static uint64_t read_limit(const char *path)
{
    char text[TEXT_SIZE] = "";
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return UINT64_MAX;
    size_t size = fread(text, 1, sizeof(text) - 1, file);
    (void)fclose(file); // was only read
    while (size > 0 && (text[size - 1] == '\n' || text[size - 1] == ' '))
        size--;
    uint64_t limit = 0;
    return str_to_u64((struct str){text, size}, &limit) && limit > 0 ? limit : UINT64_MAX;
}

uint64_t memory_limit_default(void)
{
    // Version 2 and version 1 of control groups, as a container sees its own.
    static const char *const paths[] = {"/sys/fs/cgroup/memory.max",
                                        "/sys/fs/cgroup/memory/memory.limit_in_bytes"};
    struct sysinfo machine;
    uint64_t memory = UINT64_MAX;
    if (sysinfo(&machine) == 0)
        memory = (uint64_t)machine.totalram * machine.mem_unit;
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        uint64_t limit = read_limit(paths[i]);
        memory = limit < memory ? limit : memory;
    }
    return memory / PART * PARTS;
}
