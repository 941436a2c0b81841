package wal

import (
	"bytes"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// twoCommits is a log of a disk with a commit of one record, one of three and a last one of four, among them one that is deleted, in one file. The
// last one begins shift bytes before an end of a page beyond from. It
// returns its name and content, where the last commit begins, and what there was before it and after it.
func twoCommits(t *testing.T, capacity, from int64, shift int64) (n name, content []byte, begin int64, before, after map[string]string) {
	t.Helper()
	disk := newMemDisk()
	l, err := Open(Options{Content: 1, Log: quiet(), disk: disk, capacity: capacity})
	require.NoError(t, err)
	put(t, l, 1, key(7), "alone")
	putAll(t, l, "first", 1, 2, 3)
	filled := l.active.at + frameLen + int64(len(key(8)))
	page := (max(from, filled+shift) + pageSize - 1) / pageSize * pageSize
	put(t, l, 1, key(8), strings.Repeat("f", int(page-shift-filled)))
	before = load(t, l)
	begin = l.active.at
	n = l.active.name
	require.NoError(t, l.Commit(func(f *Frames) error {
		f.Put(Record{Kind: 1, Key: key(1), Value: bytes.Repeat([]byte{1}, 300)})
		f.Put(Record{Kind: 1, Key: key(2), Delete: true})
		f.Put(Record{Kind: 2, Key: key(1), Value: []byte("a report")})
		f.Put(Record{Kind: 1, Key: key(4), Value: []byte("ends with zeros\x00\x00\x00\x00\x00\x00")})
		return nil
	}))
	after = load(t, l)
	require.NotContains(t, after, "1/00000002")
	require.NoError(t, l.Close())
	return n, disk.names[n.String()].data, begin, before, after
}

// holding is a disk with one file.
func holding(n name, content []byte) *memDisk {
	disk := newMemDisk()
	disk.names[n.String()] = &memFile{disk: disk, data: content}
	return disk
}

// A kill interrupts a write at the end of a page: what is there of the commit counts whole or not at all, now and after every further start, and it is told.
func TestKilledCommitCountsWholeOrNotAtAll(t *testing.T) {
	for _, c := range []struct {
		what     string
		capacity int64
		whole    int64 // wholeFile
		step     int64
	}{{"a file in one piece", 3 * pageSize, wholeFile, 1}, {"a long file", 4 * window, window, 61}} {
		t.Run(c.what, func(t *testing.T) {
			was := wholeFile
			wholeFile = c.whole
			defer func() { wholeFile = was }()
			from := int64(0)
			if c.capacity > wholeFile {
				from = wholeFile
			}
			for shift := int64(0); ; shift += c.step {
				n, content, begin, before, after := twoCommits(t, c.capacity, from, shift)
				length := int64(used(content)) - 2*frameLen - begin // of the last commit
				if shift >= length {
					break
				}
				at := begin + shift
				require.Zero(t, at%pageSize)
				cut := slices.Clone(content)
				clear(cut[at:])
				disk := holding(n, cut)
				l := openOn(t, disk)
				got := load(t, l)
				told := l.Damages()
				switch {
				case shift == 0:
					require.Equal(t, before, got, "nothing of it was written")
					require.Equal(t, Damages{}, told)
				case maps.Equal(got, after):
					require.Greater(t, shift, length-frameLen-6, "cut at %d: the last record ends with zeros", shift)
				default:
					require.Equal(t, before, got, "cut at %d", shift)
					require.Equal(t, 1, told.Tails, "cut at %d", shift)
					require.Zero(t, told.Count)
					require.Regexp(t, "^the last (commit is not whole: what there is of it, [1-4] records, is left out|record is not whole)$", told.Some[0].What)
					require.Equal(t, begin, told.Some[0].From)
					require.Empty(t, disk.aside, "it is no evidence of anything")
				}
				put(t, l, 1, key(9), "later")
				require.NoError(t, l.Close())
				got["1/00000009"] = "later"
				l = openOn(t, disk)
				require.Equal(t, got, load(t, l), "it is no end any more that ends there")
				require.NoError(t, l.compact(t.Context()))
				require.Equal(t, got, load(t, l), "nor in a snapshot")
				require.NoError(t, l.Close())
			}
		})
	}
}

// Damage within a commit, or of what ends it, undoes nothing: what is beside it stays, also where the file was cut off there: its client was told.
func TestDamageWithinACommitUndoesNothing(t *testing.T) {
	n, content, begin, _, after := twoCommits(t, 3*pageSize, 0, 100)
	for at := begin; at < int64(used(content)-2*frameLen); at++ {
		for bit := range 8 {
			bad := slices.Clone(content)
			bad[at] ^= 1 << bit
			l := openOn(t, holding(n, bad))
			got := load(t, l)
			other := 0
			for _, k := range []string{"1/00000001", "1/00000002", "1/00000003", "1/00000004", "1/00000007", "1/00000008", "2/00000001"} {
				if got[k] != after[k] {
					other++
				}
			}
			require.LessOrEqual(t, other, 1, "bit %d of %d", bit, at)
			require.Equal(t, 1, l.Damages().Count+l.Damages().Tails)
			require.NoError(t, l.Close())
			if at > begin+100 && at < begin+300 {
				break // all the same within a value
			}
		}
	}
	first := "1/00000001"
	l := openOn(t, holding(n, content[:begin+400]))
	assert.Equal(t, after[first], load(t, l)[first])
	require.NoError(t, l.Close())

}

// A commit that ends at the end of a page looks as if a kill had cut it. Where that is known to be otherwise, what is there of it stays: somebody
// was told of it.
func TestCommitThatNoKillHasCutStays(t *testing.T) {
	n, content, begin, _, after := twoCommits(t, 3*pageSize, 0, 400)
	at := begin + 400
	require.Zero(t, at%pageSize)
	delete(after, "1/00000004") // its last record goes beyond that
	zeros := slices.Clone(content)
	clear(zeros[at:])
	next := name{seq: n.seq + 1, salt: 0x1122334455667788}
	for what, disk := range map[string]*memDisk{
		"the file was cut off":            holding(n, content[:at]),
		"the disk does not give its rest": holding(n, content),
		"the next file knows its end":     holding(n, zeros),
	} {
		t.Run(what, func(t *testing.T) {
			switch what {
			case "the disk does not give its rest":
				disk.broken = only(at/pageSize, 1<<20)
			case "the next file knows its end":
				header := appendHeader(nil, next, 1, pageSize, int64(used(content)-2*frameLen), testTime)
				disk.names[next.String()] = &memFile{disk: disk, data: append(header, make([]byte, pageSize-headerLen)...)}
			}
			got, d := has(t, disk)
			require.Equal(t, after, got)
			require.Positive(t, d.Count+d.Tails)
			require.Contains(t, disk.aside, n.String())
		})
	}
}

// In a file of a version that marked no commits each record counts by itself, also the last one before a kill.
func TestFilesWithoutMarksAreRead(t *testing.T) {
	n := name{seq: 1, salt: 0x1122334455667788}
	s := sealOf(n.salt)
	content := appendHeader(nil, n, 1, 4096, 0, testTime)
	for i := range 4 {
		content = s.append(content, Record{Kind: 1, Key: key(i), Value: []byte(strings.Repeat("x", 20))}, 0)
	}
	content = append(content[:len(content)-5], make([]byte, 4096-len(content)+5)...)
	l := openOn(t, holding(n, content))
	assert.Len(t, load(t, l), 3)
	assert.Equal(t, 1, l.Damages().Tails)
	require.NoError(t, l.Close())
}

// Two commits side by side, of which the first one's end is damaged: a kill within the second one leaves the first.
func TestCutCommitBehindADamagedEnd(t *testing.T) {
	n := name{seq: 1, salt: 0x1122334455667788}
	s := sealOf(n.salt)
	const capacity = 2 * pageSize
	content := appendHeader(nil, n, 1, capacity, 0, testTime)
	several := func(value string, keys ...int) {
		part := byte(flagFirst)
		for _, k := range keys {
			content = s.append(content, Record{Kind: 1, Key: key(k), Value: []byte(value)}, part)
			part = flagMore
		}
		content = s.end(content)
	}
	content = s.append(content, Record{Kind: 2, Key: key(9), Value: make([]byte, 3843)}, 0) // so that the second one's last record ends with a page
	several("first", 1, 2, 3)
	content[len(content)-frameLen+5] ^= 0x40
	several("second", 1, 2, 4)
	content = content[:len(content)-frameLen]
	require.Len(t, content, pageSize)
	l := openOn(t, holding(n, append(content, make([]byte, capacity-len(content))...)))
	got := load(t, l)
	delete(got, "2/00000009")
	assert.Equal(t, map[string]string{"1/00000001": "first", "1/00000002": "first", "1/00000003": "first"}, got)
	assert.Equal(t, 1, l.Damages().Tails)
	assert.Equal(t, 1, l.Damages().Count)
	require.NoError(t, l.Close())
}
