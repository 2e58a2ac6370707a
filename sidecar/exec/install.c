#include "install.h"

#include <stdbool.h>

#include "contract.h"
#include "syscalls.h"

/* linux/fs.h, which includes too much for a freestanding program. */
#define RENAME_NOREPLACE 1U

/* Up to `size` bytes; the number of them, or a negated errno. */
static long read_all(int descriptor, char *bytes, size_t size)
{
    size_t length = 0;
    while (length < size) {
        long count = sys_read(descriptor, bytes + length, size - length);
        if (count == -EINTR) {
            continue;
        }
        if (count < 0) {
            return count;
        }
        if (count == 0) {
            break;
        }
        length += (size_t)count;
    }
    return (long)length;
}

static long write_all(int descriptor, const char *bytes, size_t size)
{
    for (size_t length = 0; length < size;) {
        long count = sys_write(descriptor, bytes + length, size - length);
        if (count == -EINTR) {
            continue;
        }
        if (count <= 0) {
            return count < 0 ? count : -EIO;
        }
        length += (size_t)count;
    }
    return 0;
}

/* Whether HELPER_FILE is a regular file with these bytes and the right mode. Anything else may be replaced. */
static bool is_there(const char *bytes, size_t size, char *memory)
{
    long descriptor = sys_open(HELPER_FILE, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK);
    if (descriptor < 0) {
        return false;
    }
    struct stat status;
    bool same = sys_stat((int)descriptor, &status) == 0 && S_ISREG(status.st_mode) &&
                (status.st_mode & 07777) == HELPER_MODE && (size_t)status.st_size == size &&
                read_all((int)descriptor, memory, size) == (long)size;
    sys_close((int)descriptor);
    for (size_t at = 0; same && at < size; at++) {
        same = memory[at] == bytes[at];
    }
    return same;
}

/* With the digits of the process' number in reverse: any name of its own will do. */
static char new_file[sizeof(NEW_HELPER_FILE) + 20] = NEW_HELPER_FILE;

static void name_new_file(void)
{
    char *end = new_file + sizeof(NEW_HELPER_FILE) - 1;
    for (long number = sys_process(); number > 0; number /= 10) {
        *end++ = (char)('0' + number % 10);
    }
}

/* Closed before it is renamed: Linux does not run a file that is open for writing. */
static long write_aside(const char *bytes, size_t size)
{
    long descriptor = sys_create(new_file);
    if (descriptor < 0) {
        return descriptor;
    }
    long error = write_all((int)descriptor, bytes, size);
    if (error == 0) {
        error = sys_mode((int)descriptor, HELPER_MODE);
    }
    sys_close((int)descriptor);
    return error;
}

/* Never over a file that morphisms-init has just put there: that one belongs to what it published as a whole. */
static long put(const char *bytes, size_t size, char *memory)
{
    long error = sys_rename(new_file, HELPER_FILE, RENAME_NOREPLACE);
    if (error != -EEXIST || is_there(bytes, size, memory)) {
        return error == -EEXIST ? 0 : error;
    }
    return sys_rename(new_file, HELPER_FILE, 0);
}

struct installation install(char *memory, size_t size)
{
    long self = sys_open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    long length = self < 0 ? self : read_all((int)self, memory, size);
    if (length < 0) {
        return (struct installation){"cannot read /proc/self/exe", length};
    }
    size_t half = size / 2;
    if ((size_t)length > half) {
        return (struct installation){"the program is too large", -EFBIG};
    }
    if (is_there(memory, (size_t)length, memory + half)) {
        return (struct installation){NULL, 0};
    }
    name_new_file();
    sys_remove(new_file); /* of an installation that was killed */
    long error = write_aside(memory, (size_t)length);
    const char *step = "cannot write it";
    if (error == 0) {
        error = put(memory, (size_t)length, memory + half);
        step = "cannot put it in place";
    }
    sys_remove(new_file); /* absent, but after a failure or a rival's success */
    return (struct installation){step, error};
}
