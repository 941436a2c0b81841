package wal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// maxDamages bounds how many stretches are kept for people; all are counted.
const maxDamages = 100

// damages is what was found that could not be read.
type damages struct {
	mu    sync.Mutex
	known map[string]struct{} // places that were told
	n     int
	tails int
	some  []Damage
	aside []string
	loose map[string]error // files that could not be put aside yet, and why
}

// Damages is what of a log could not be read since it was opened.
type Damages struct {
	Count int `json:"count"` // stretches; each is one record, or some that lay together
	// Tails are last records that were not whole, at the end of a file: of a commit that
	// nobody waited for any more, after a loss of power.
	Tails int      `json:"tails"`
	Some  []Damage `json:"some,omitempty"`  // the first ones
	Aside []string `json:"aside,omitempty"` // where the damaged files are kept
	// Loose are damaged files that could not be put aside, with the reason: they are lost with the next snapshot.
	Loose []string `json:"loose,omitempty"`
}

// Damages returns what could not be read.
func (l *Log) Damages() Damages {
	d := &l.damage
	d.mu.Lock()
	defer d.mu.Unlock()
	out := Damages{Count: d.n, Tails: d.tails, Some: slices.Clone(d.some), Aside: slices.Clone(d.aside)}
	for _, file := range slices.Sorted(maps.Keys(d.loose)) {
		out.Loose = append(out.Loose, fmt.Sprintf("%s: %v", file, d.loose[file]))
	}
	return out
}

// damaged notes a stretch that cannot be read and keeps its file aside.
func (l *Log) damaged(x Damage) {
	if n, ok := parseName(x.File); l.damage.note(x) && ok && !x.killed { // what a kill has left is no evidence of anything
		l.keepAside(n)
	}
}

// note counts a stretch, and reports whether it is new: files are read more than once.
func (d *damages) note(x Damage) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	place := fmt.Sprintf("%s@%d", x.File, x.From)
	if _, known := d.known[place]; known {
		return false
	}
	if d.known == nil {
		d.known = map[string]struct{}{}
	}
	d.known[place] = struct{}{}
	if x.Tail {
		d.tails++
	} else {
		d.n++
	}
	if len(d.some) < maxDamages {
		d.some = append(d.some, x)
	}
	return true
}

// isAside reports whether a file is aside, and whether it could not be put there.
func (d *damages) isAside(file string) (aside, loose bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, loose = d.loose[file]
	return slices.ContainsFunc(d.aside, func(p string) bool { return strings.HasSuffix(p, file) }), loose
}

// noteAside notes where a file was put aside, or why it could not be.
func (d *damages) noteAside(file, kept string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil {
		delete(d.loose, file)
		d.aside = append(d.aside, kept)
		return
	}
	if d.loose == nil {
		d.loose = map[string]error{}
	}
	d.loose[file] = err
}

// keepAside puts a damaged file aside, unless it is there already. Who reads files does it, one at a time, and nobody who asks
// what is damaged waits for the disk.
func (l *Log) keepAside(n name) {
	file := n.String()
	aside, loose := l.damage.isAside(file)
	if aside {
		return
	}
	kept, err := l.disk.Aside(file)
	l.damage.noteAside(file, kept, err)
	switch {
	case err == nil:
		l.files.change(n, func(f *fileInfo) { f.bad = true })
	case !loose:
		l.opts.Log.Error("a damaged file of the log could not be put aside; it is tried once more before a snapshot takes its place", "file", file, "error", err)
	}
}

// keepLoose tries once more to put aside what could not be, before the files go.
func (l *Log) keepLoose(files []fileInfo) {
	for _, f := range files {
		if _, loose := l.damage.isAside(f.name.String()); loose {
			l.keepAside(f.name)
		}
	}
}

// list looks at what the directory has. Older files than the newest whole snapshot are not read any more.
func (l *Log) list() error {
	names, err := l.disk.List()
	if err != nil {
		return err
	}
	var all []name
	var others []string
	for _, s := range names {
		if n, ok := parseName(s); ok {
			all = append(all, n)
		} else if unfinished, is := strings.CutSuffix(s, tmpSuffix); !is {
			others = append(others, s)
		} else if _, ours := parseName(unfinished); ours {
			_ = l.disk.Remove(s) // a file that was not finished; one that stays does no harm
		}
	}
	all = l.rename(all)
	if all, err = l.nameAgain(all, others); err != nil {
		return err
	}
	slices.SortFunc(all, func(a, b name) int {
		return cmp.Or(cmp.Compare(a.seq, b.seq), cmp.Compare(bit(a.snapshot), bit(b.snapshot)), cmp.Compare(a.salt, b.salt))
	})
	for i := len(all) - 1; i > 0; i-- {
		if all[i].snapshot && l.whole(all[i]) {
			if l.disk.SyncDir() == nil { // or a loss of power might take the name of the snapshot, and what it replaces is gone
				for _, n := range all[:i] {
					_ = l.disk.Remove(n.String()) // the process that made the snapshot did not come to it
				}
			}
			all = all[i:]
			break
		}
	}
	for _, n := range all {
		bytes := int64(headerLen)
		if src, err := l.disk.Open(n.String()); err == nil {
			if size, err := src.Size(); err == nil {
				bytes = size
			}
			_ = src.Close() // only its size was asked for
		}
		l.files.all = append(l.files.all, fileInfo{name: n, bytes: bytes, sealed: true})
		l.seq = max(l.seq, n.seq)
	}
	return nil
}

// rename gives files the names that they were made with, if their headers know better: a name may be damaged like anything else. It returns those
// that are ours: a number near the last one without a header that has it would leave none for the files to come.
func (l *Log) rename(all []name) (ours []name) {
	for _, n := range all {
		h, err := l.header(n.String())
		right := name{seq: h.seq, salt: h.salt, snapshot: n.snapshot}
		switch {
		case err != nil && (n.seq >= maxSeq/2 || n.salt>>32 == 0): // the marker of such a salt is anywhere where there is nothing
			l.damaged(Damage{File: n.String(), What: "no file of the log can have its numbers"})
			_ = l.disk.Remove(n.String()) // it is put aside
			continue
		case err != nil, right == n, slices.Contains(all, right), h.seq >= maxSeq:
		default:
			what := "its header has another number than its name: it is " + right.String()
			if err := errors.Join(l.disk.Rename(n.String(), right.String()), l.disk.SyncDir()); err != nil {
				what = fmt.Sprintf("its name is wrong, and it could not be named %s again: %v", right, err)
			} else {
				n = right
			}
			l.damaged(Damage{File: n.String(), What: what})
		}
		ours = append(ours, n)
	}
	return ours
}

// nameAgain takes in files whose names are damaged so that they are none of ours any more. Their headers alone do not make them ours, for who
// copies a file somewhere copies that, too: the name is like the right one, of which there is no file, and no snapshot has what is in it.
func (l *Log) nameAgain(all []name, others []string) ([]name, error) {
	for _, snapshots := range []bool{true, false} { // they say what else is still needed
		for _, s := range others {
			h, err := l.header(s)
			right := name{seq: h.seq, salt: h.salt, snapshot: h.capacity == 0}
			if err != nil || right.snapshot != snapshots || h.seq >= maxSeq || !likeName(s, right.String()) || slices.ContainsFunc(all, func(n name) bool {
				return n == right || n.snapshot && n.seq >= right.seq && l.whole(n)
			}) {
				continue
			}
			if err := errors.Join(l.disk.Rename(s, right.String()), l.disk.SyncDir()); err != nil {
				return nil, fmt.Errorf("the name %q is damaged, and it could not be named %s again: %w", s, right, err) // to go on would be to lose it
			}
			l.damaged(Damage{File: right.String(), What: fmt.Sprintf("its name was damaged: %q", s)})
			all = append(all, right)
		}
	}
	return all, nil
}

// likeName reports whether a name may have been another one before it was damaged: no more than a quarter of it is wrong.
func likeName(s, right string) bool {
	if len(s) != len(right) {
		return false
	}
	wrong := 0
	for i := range len(s) {
		wrong += bit(s[i] != right[i])
	}
	return wrong <= len(s)/4
}

// header reads the header of a file.
func (l *Log) header(file string) (header, error) {
	src, err := l.disk.Open(file)
	if err != nil {
		return header{}, err
	}
	defer src.Close()
	var head [headerLen]byte
	size, _ := src.ReadAt(head[:], 0)
	return readHeader(head[:size])
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

// endLen is the length of the last frame of a snapshot.
const endLen = frameLen + 8

// whole reports whether a snapshot has its last frame: the process that wrote it came to its end, and nothing was cut off.
func (l *Log) whole(n name) bool {
	src, err := l.disk.Open(n.String())
	if err != nil {
		return false
	}
	defer src.Close()
	size, err := src.Size()
	if err != nil || size < headerLen+endLen {
		return false
	}
	end := make([]byte, endLen)
	if n, _ := src.ReadAt(end, size-endLen); n < len(end) {
		return false
	}
	s := sealOf(n.salt)
	return s.length(end) == endLen && s.holds(end) && end[12] == endKind
}

// Load reads the log: each is called once for every key that has a value, in no
// order. What the Record shares is the log's. What cannot be read is told by
// Damages and left out. Of commits that come meanwhile it has some. Its error is that of each, of ctx, a
// *NewerError, or that of a disk that gives a file not at all: what it has is not lost, and to go on without would be to forget it.
func (l *Log) Load(ctx context.Context, each func(Record) error) error {
	l.reading.Lock()
	defer l.reading.Unlock()
	defer l.files.wake()
	files := l.files.list()
	l.settle(files)
	l.missing(files)
	return l.merge(ctx, files, func(frame []byte) error { return each(record(frame)) }, func(n name, end int64) {
		l.files.change(n, func(f *fileInfo) {
			if f.sealed {
				f.bytes = end
			}
		})
	})
}

// settle has on disk what is about to be read: a process that was killed between a write and its sync left something that
// only the kernel knows, and what was read counts as kept from then on.
func (l *Log) settle(files []fileInfo) {
	for _, f := range files {
		if f.name.snapshot || !f.sealed {
			continue
		}
		if err := l.disk.Sync(f.name.String()); err != nil {
			l.files.change(f.name, func(f *fileInfo) { f.bad = true }) // a snapshot then has it, and is synced
		}
	}
}

// missing tells of files that are not there.
func (l *Log) missing(files []fileInfo) {
	if len(files) == 0 {
		return
	}
	next := files[0].name.seq
	if !files[0].name.snapshot && next > 1 {
		l.damaged(Damage{File: fmt.Sprintf("%020d", next-1), What: "the snapshot of all files before it is missing"})
	}
	for _, f := range files {
		if gap := f.name.seq - min(next, f.name.seq); gap > maxDamages { // a name need not be one that we gave
			l.damaged(Damage{File: fmt.Sprintf("%020d%s", next, logSuffix), What: fmt.Sprintf("it is missing, and so are the %d after it", gap-1)})
			next = f.name.seq
		}
		for ; next < f.name.seq; next++ {
			l.damaged(Damage{File: fmt.Sprintf("%020d%s", next, logSuffix), What: "it is missing"})
		}
		next = f.name.seq + 1
	}
}

// merge calls each with the newest frame of every key that has a value. The newest file comes first, so that what is
// known of a key then is newer than what follows. A snapshot, which is the first file if there is one, has each key once.
func (l *Log) merge(ctx context.Context, files []fileInfo, each func(frame []byte) error, atEnd func(name, int64)) error {
	m := merger{log: l, ctx: ctx, each: each}
	for _, f := range slices.Backward(files) {
		if f.name.snapshot && f.name == files[0].name {
			_, err := m.scan(f.name, 0, func(frame []byte, _ int64) error {
				if frame[flagsAt]&flagDelete != 0 || m.known.has(frame) {
					return nil
				}
				return each(frame)
			}, l.damaged)
			return err
		}
		if m.next == f.name.seq+1 {
			f.acked = max(f.acked, m.before)
		}
		end, err := m.changes(f.name, f.acked)
		if err != nil {
			return err
		}
		atEnd(f.name, end)
	}
	return nil
}

// merger is one merge on its way.
type merger struct {
	log    *Log
	ctx    context.Context
	each   func(frame []byte) error
	known  keys
	room   []byte
	frames [][]byte

	// Of the file that was read last, which is the newer one: its number, and where the one before it ends.
	next   uint64
	before int64
}

func (m *merger) scan(n name, acked int64, each func(frame []byte, at int64) error, bad func(Damage)) (*scanner, error) {
	s, err := scanFile(m.ctx, m.log.disk, n, m.log.opts.Content, acked, &m.room, each, bad)
	if err != nil {
		err = fmt.Errorf("read %s: %w", n, err)
	}
	return s, err
}

// changes goes through the frames of a file, backwards for which are the newest of their keys, and returns where they end.
func (m *merger) changes(n name, acked int64) (end int64, err error) {
	m.frames, end = m.frames[:0], headerLen
	s, err := m.scan(n, acked, func(frame []byte, at int64) error {
		if end = at + int64(len(frame)); end <= wholeFile {
			m.frames = append(m.frames, frame)
		}
		return nil
	}, m.log.damaged)
	if err != nil {
		return 0, err
	}
	m.next, m.before = n.seq, s.header.before
	if s.cut > 0 {
		end = s.cut
	}
	if !s.kept() {
		return end, m.large(n, end)
	}
	if s.cut > 0 {
		m.frames = m.frames[:len(m.frames)-s.since]
	}
	for i, frame := range slices.Backward(m.frames) {
		if !m.news(frame) {
			m.frames[i] = nil
		}
	}
	for _, frame := range m.frames {
		if frame != nil {
			if err := m.each(frame); err != nil {
				return 0, err
			}
		}
	}
	return end, nil
}

// news reports whether a frame says what its key has: nothing newer is known of it.
func (m *merger) news(frame []byte) bool { return m.known.add(frame) && frame[flagsAt]&flagDelete == 0 }

// large is changes for a file of another size than ours have: it is read twice more, up to end, first for where the newest frame of each key is.
func (m *merger) large(n name, end int64) error {
	newest := newPlaces()
	_, err := m.scan(n, 0, func(frame []byte, at int64) error {
		if at < end {
			newest.set(frame, at)
		}
		return nil
	}, func(Damage) {})
	if err != nil {
		return err
	}
	_, err = m.scan(n, 0, func(frame []byte, at int64) error {
		if at >= end || !newest.is(frame, at) || !m.news(frame) {
			return nil
		}
		return m.each(frame)
	}, func(Damage) {})
	return err
}
