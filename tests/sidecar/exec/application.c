/* What the helper becomes in the tests: says what it was started with, each part ended by NUL.
 *
 * Parts: pid · working directory · SigBlk and SigIgn · descriptors · argc · arguments · environment.
 * `application wait` says it is there, and ends with 7 on SIGTERM. */
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern char **environ;

static void part(const char *text)
{
    fwrite(text, 1, strlen(text) + 1, stdout);
}

static void signals(void)
{
    char line[256];
    char found[512] = "";
    FILE *status = fopen("/proc/self/status", "r");
    while (status != NULL && fgets(line, sizeof(line), status) != NULL) {
        if (strncmp(line, "SigBlk", 6) == 0 || strncmp(line, "SigIgn", 6) == 0) {
            strcat(found, line);
        }
    }
    if (status != NULL) {
        fclose(status);
    }
    part(found);
}

static void descriptors(void)
{
    char found[8192] = "";
    for (int descriptor = 0; descriptor < 1024; descriptor++) {
        if (dup2(descriptor, descriptor) == descriptor) {
            sprintf(found + strlen(found), "%d ", descriptor);
        }
    }
    part(found);
}

static void terminated(int number)
{
    (void)number;
    _exit(7);
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "wait") == 0) {
        signal(SIGTERM, terminated);
        puts("here");
        fflush(stdout);
        for (;;) {
            pause();
        }
    }
    char number[32];
    char folder[4096];
    sprintf(number, "%d", (int)getpid());
    part(number);
    part(getcwd(folder, sizeof(folder)) == NULL ? "" : folder);
    signals();
    descriptors();
    sprintf(number, "%d", argc);
    part(number);
    for (int at = 0; at < argc; at++) {
        part(argv[at]);
    }
    for (char **at = environ; *at != NULL; at++) {
        part(*at);
    }
    return 0;
}
