package statedir

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
)

// maxHead bounds the first line of a summed file: a name, two numbers.
const maxHead = 256

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Sum returns the checksum of a summed file's body.
func Sum(body []byte) uint32 { return crc32.Checksum(body, castagnoli) }

// WriteSummed writes what ReadSummed reads: the line "MAGIC VERSION CRC", the CRC-32C of the body in hexadecimal, and the body.
func WriteSummed(w io.Writer, magic string, version int, body []byte) error {
	if _, err := fmt.Fprintf(w, "%s %d %08x\n", magic, version, Sum(body)); err != nil {
		return err
	}
	_, err := w.Write(body)
	return err
}

// ReadSummed returns version and body of a file that WriteSummed wrote, of any version. Each error says that the file is damaged, or
// that the disk does not give it. Of a body that is longer than most bytes nothing is read, and of one whose checksum
// does not hold nothing is kept in memory: what is wrong with a file costs no more than the time to read so much.
func ReadSummed(f *os.File, magic string, most int64) (version int, body []byte, err error) {
	info, err := f.Stat()
	if err != nil {
		return 0, nil, err
	}
	if !info.Mode().IsRegular() {
		return 0, nil, errors.New("not a regular file")
	}
	version, want, from, err := head(f, magic)
	if err != nil {
		return 0, nil, err
	}
	size := info.Size() - from
	if size > most {
		return 0, nil, fmt.Errorf("it has %d bytes, and at most %d are usher's: the file is damaged", info.Size(), from+most)
	}
	sum := crc32.New(castagnoli)
	if _, err := io.CopyBuffer(sum, io.NewSectionReader(f, from, size), make([]byte, 1<<16)); err != nil {
		return 0, nil, err
	}
	if sum := sum.Sum32(); sum != want {
		return 0, nil, fmt.Errorf("checksum is %08x, the content has %08x: the file is damaged", want, sum)
	}
	body = make([]byte, size)
	if _, err := f.ReadAt(body, from); err != nil {
		return 0, nil, err
	}
	return version, body, nil
}

// SummedVersion returns the version that the first line of a file names; 0: it is no such line.
func SummedVersion(f *os.File, magic string) (int, error) {
	version, _, _, err := head(f, magic)
	if errors.Is(err, errForeign) {
		return 0, nil
	}
	return version, err
}

var errForeign = errors.New("the first line is none of usher's")

// head reads the first line, and returns where the body begins.
func head(f *os.File, magic string) (version int, sum uint32, from int64, err error) {
	line := make([]byte, maxHead)
	n, err := f.ReadAt(line, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, 0, 0, err
	}
	end := bytes.IndexByte(line[:n], '\n') + 1
	if n, _ := fmt.Sscanf(string(line[:end]), magic+" %d %08x\n", &version, &sum); n != 2 || version < 1 {
		return 0, 0, 0, errForeign
	}
	return version, sum, int64(end), nil
}
