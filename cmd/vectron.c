#include "vectron/verb.h"

int main(int argc, char **argv)
{
    return verb_main(argc, argv);
}
