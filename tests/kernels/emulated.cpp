// Runs a program that tests/emulated.py wrote down, in a process of its own: on an emulator of another processor.
//
// The file: int64 operations, int64 regions; the operations; then each region as int64 address, size, whether it holds
// addresses, and its bytes. Regions get memory of this process and the addresses in operations and regions are moved
// there; after the run the regions that hold none are written to the second file, one after the other.
#include "kernels.cpp"

#include <cstdio>
#include <cstdlib>

namespace {

struct Region {
    int64_t address, size, addresses;
    char* here;
};
std::vector<Region> regions;

[[noreturn]] void fail(const char* what, int64_t number) {
    std::fprintf(stderr, "%s %lld\n", what, static_cast<long long>(number));
    std::exit(1);
}

char* moved(int64_t address) {
    for (const Region& r : regions)
        if (address >= r.address && address < r.address + (r.size ? r.size : 1)) return r.here + (address - r.address);
    return nullptr;
}

template <class T> void move(T*& pointer) {
    if (!pointer) return;
    char* there = moved(reinterpret_cast<int64_t>(pointer));
    if (!there) fail("an operation reads memory that was not sent:", reinterpret_cast<int64_t>(pointer));
    pointer = reinterpret_cast<T*>(there);
}

template <class T> T read(FILE* file) {
    T x;
    if (std::fread(&x, sizeof x, 1, file) != 1) fail("the file is too short", 0);
    return x;
}

}  // namespace

int main(int, char** files) {
    FILE* in = std::fopen(files[1], "rb");
    std::vector<Op> ops(read<int64_t>(in));
    int64_t count = read<int64_t>(in);
    for (Op& op : ops) op = read<Op>(in);
    for (int64_t i = 0; i < count; i++) {
        Region r{read<int64_t>(in), read<int64_t>(in), read<int64_t>(in), nullptr};
        r.here = static_cast<char*>(std::malloc(r.size + 1));
        if (std::fread(r.here, 1, r.size, in) != size_t(r.size)) fail("the file is too short", i);
        regions.push_back(r);
    }
    for (const Region& r : regions)
        for (int64_t at = 0; r.addresses && at < r.size; at += 8) {
            int64_t address;
            std::memcpy(&address, r.here + at, 8);
            if (char* there = moved(address)) std::memcpy(r.here + at, &there, 8);
        }
    for (Op& op : ops) {
        move(op.rows);
        for (void*& p : op.p) move(p);
    }
    myna_run(ops.data(), int64_t(ops.size()));
    FILE* out = std::fopen(files[2], "wb");
    std::fputs(myna_level(), out), std::fputc(0, out);
    for (const Region& r : regions)
        if (!r.addresses) std::fwrite(r.here, 1, r.size, out);
    return std::fclose(out);
}
