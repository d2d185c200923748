/* The program: safe standard streams, then the command line. The only file that ends the process.
 */
#include "runner/cli.h"

#include <fcntl.h>

/* A stream closed by the caller would give its number to the next file that is opened, and a
 * message would then be written into the database. It is filled with a descriptor that fails on
 * use: reading from 0, writing to 1 and 2. */
static bool fill_standard_streams(void)
{
    for (int fd = 0; fd <= 2; fd++) {
        if (fcntl(fd, F_GETFD) >= 0) continue;
        if (open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY) != fd) return false;
    }
    return true;
}

int main(int argc, char **argv)
{
    if (!fill_standard_streams()) return 1;
    return mm_cli_main(argc, argv);
}
