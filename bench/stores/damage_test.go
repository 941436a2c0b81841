package stores

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	groups    = 200 // with 2,000 records
	timeLimit = 10 * time.Second
	pageLen   = 4096
)

// TestMain is a child as well, where a candidate may panic and hang.
func TestMain(m *testing.M) {
	switch os.Getenv("STORES_CHILD") {
	case "write":
		childWrites()
	case "damage":
		childDamages()
	default:
		os.Exit(m.Run())
	}
}

func child(role string, c candidate, dir string, args ...int) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "STORES_CHILD="+role, "STORES_NAME="+c.name, "STORES_DIR="+dir)
	for i, a := range args {
		cmd.Env = append(cmd.Env, fmt.Sprintf("STORES_ARG%d=%d", i, a))
	}
	return cmd
}

func childArg(i int) int {
	n, err := strconv.Atoi(os.Getenv(fmt.Sprintf("STORES_ARG%d", i)))
	must(err)
	return n
}

func childCandidate() candidate {
	for _, c := range candidates() {
		if c.name == os.Getenv("STORES_NAME") {
			return c
		}
	}
	panic("no such candidate")
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// childWrites commits groups, says each, and closes the store at the end of its input.
func childWrites() {
	s, err := childCandidate().open(os.Getenv("STORES_DIR"), func(record) {})
	must(err)
	for i := range childArg(0) {
		must(s.Commit(group(i)))
		fmt.Println(i)
	}
	fmt.Println("all")
	_, _ = io.Copy(io.Discard, os.Stdin)
	must(s.Close())
}

// write has a child commit groups in dir, and kills it when until says so of a line; otherwise the store is closed.
func write(t *testing.T, c candidate, dir string, kill func(line string) bool) {
	cmd := child("write", c, dir, groups)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if kill(lines.Text()) {
			require.NoError(t, cmd.Process.Kill())
			break
		}
		if lines.Text() == "all" {
			require.NoError(t, in.Close())
		}
	}
	_, _ = io.Copy(io.Discard, out)
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() >= 0 {
		require.NoError(t, err)
	}
}

// TestKilled: of a process killed between two commits all that it said is there, and each commit whole, with both kinds.
func TestKilled(t *testing.T) {
	forAll(t, func(t *testing.T, c candidate) {
		for _, at := range []int{0, 37, 120, 199} {
			dir := t.TempDir()
			write(t, c, dir, func(line string) bool { return line == strconv.Itoa(at) })
			have := map[uint32]byte{}
			s, err := c.open(dir, func(r record) {
				require.True(t, r.whole())
				have[binary.BigEndian.Uint32(r.Key)] = r.Kind
			})
			require.NoError(t, err)
			require.NoError(t, s.Close())
			require.GreaterOrEqual(t, len(have), (at+1)*groupLen, "committed records are lost")
			require.Zero(t, len(have)%groupLen, "a part of a commit")
			for n, kind := range have {
				require.Equal(t, n%groupLen == groupLen-1, kind == kindReport)
			}
		}
	})
}

// TestSyncs counts the system calls that bring 200 commits to disk.
func TestSyncs(t *testing.T) {
	if _, err := exec.LookPath("strace"); err != nil {
		if os.Getenv("USHER_REQUIRE_KERNEL") == "1" {
			t.Fatal("strace is missing: install strace")
		}
		t.Skip("no strace")
	}
	self, err := os.Executable()
	require.NoError(t, err)
	forAll(t, func(t *testing.T, c candidate) {
		count := func(commits int) (n int, calls string) {
			sum := filepath.Join(t.TempDir(), "strace")
			cmd := child("write", c, t.TempDir(), commits)
			cmd.Args = []string{"strace", "-f", "-c", "-o", sum, "-e", "trace=fsync,fdatasync,msync", self}
			cmd.Path, err = exec.LookPath("strace")
			require.NoError(t, err)
			require.NoError(t, cmd.Run())
			b, err := os.ReadFile(sum)
			require.NoError(t, err)
			for _, m := range regexp.MustCompile(`(?m)^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+ )?\s*(f?datasync|fsync|msync)$`).FindAllStringSubmatch(string(b), -1) {
				k, err := strconv.Atoi(m[1])
				require.NoError(t, err)
				n += k
				calls += " " + m[1] + " " + m[2]
			}
			return n, calls
		}
		none, _ := count(0)
		n, calls := count(groups)
		t.Logf("%d commits:%s; %.1f a commit, %d without any", groups, calls, float64(n-none)/groups, none)
		require.GreaterOrEqual(t, n-none, groups, "not every commit is brought to disk")
	})
}

// image is the files of a store, without the zeros at their ends.
type image struct {
	names []string
	files map[string][]byte
	sizes map[string]int64
}

func readImage(dir string) image {
	m := image{files: map[string][]byte{}, sizes: map[string]int64{}}
	must(filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		m.sizes[name] = int64(len(b))
		m.files[name] = slices.Clone(bytes.TrimRight(b, "\x00"))
		return err
	}))
	for _, name := range slices.Sorted(maps.Keys(m.files)) {
		if len(m.files[name]) > 0 {
			m.names = append(m.names, name)
		}
	}
	return m
}

// places says where in a file which records are.
func (m image) places() map[string]map[int]uint32 {
	numbers := map[[8]byte]uint32{}
	for i := range groups {
		for _, r := range group(i) {
			numbers[[8]byte(r.Value)] = binary.BigEndian.Uint32(r.Key)
		}
	}
	all := map[string]map[int]uint32{}
	for name, b := range m.files {
		all[name] = map[int]uint32{}
		for i := 0; i+8 <= len(b); i++ {
			if n, ok := numbers[[8]byte(b[i:])]; ok {
				all[name][i] = n
			}
		}
	}
	return all
}

// The kinds of damage.
const (
	flip = "one bit flipped"
	cut  = "file cut"
	zero = "page zeroed"
)

// damage is the k-th one. Every second is in a file chosen by its bytes, the others in any file.
type damage struct {
	kind, file string
	from, to   int
}

func (m image) damage(k int) damage {
	rnd := rand.New(rand.NewPCG(uint64(k), 12))
	d := damage{kind: []string{flip, cut, zero}[k%3], file: m.names[rnd.IntN(len(m.names))]}
	if k/3%2 == 0 {
		total := 0
		for _, name := range m.names {
			total += len(m.files[name])
		}
		at := rnd.IntN(total)
		for _, d.file = range m.names {
			if at -= len(m.files[d.file]); at < 0 {
				break
			}
		}
	}
	d.from = rnd.IntN(len(m.files[d.file]))
	switch d.kind {
	case flip:
		d.to = d.from + 1
	case cut:
		d.to = len(m.files[d.file])
	case zero:
		d.from -= d.from % pageLen
		d.to = min(d.from+pageLen, len(m.files[d.file]))
	}
	return d
}

func (m image) write(dir string, d damage, k int) {
	for name, b := range m.files {
		path, size := filepath.Join(dir, name), m.sizes[name]
		must(os.MkdirAll(filepath.Dir(path), 0o700))
		if name == d.file {
			b = slices.Clone(b)
			switch d.kind {
			case flip:
				b[d.from] ^= 1 << (k / 3 % 8)
			case cut:
				b, size = b[:d.from], int64(d.from)
			case zero:
				clear(b[d.from:d.to])
			}
		}
		must(os.WriteFile(path, b, 0o600))
		must(os.Truncate(path, size))
	}
}

// trial is what became of one damage.
type trial struct {
	K              int
	Kind, File     string
	End            string // "" as long as it runs; "opened", "refused", "panic", "hang"
	Why            string
	Lost, Hit, Bad int // records; Bad ones were handed out as if whole
}

// beyond is how many records more than those under the damage are lost. The frame around a record counts as one.
func (r trial) beyond() int { return max(0, r.Lost-max(1, r.Hit)) }

// childDamages tries damages from the one of its first argument on, and says each before and after.
func childDamages() {
	c, say := childCandidate(), json.NewEncoder(os.Stdout)
	m := readImage(os.Getenv("STORES_DIR"))
	places := m.places()
	for k := childArg(0); k < childArg(1); k++ {
		d := m.damage(k)
		r := trial{K: k, Kind: d.kind, File: d.file}
		hit := map[uint32]bool{}
		for at, n := range places[d.file] {
			if at < d.to && at+valueLen > d.from {
				hit[n] = true
			}
		}
		r.Hit = len(hit)
		dir, err := os.MkdirTemp(os.Getenv("STORES_DIR")+".trials", "")
		must(err)
		m.write(dir, d, k)
		must(say.Encode(r))
		have := map[uint32]bool{}
		s, err := c.open(dir, func(rec record) {
			if rec.whole() {
				have[binary.BigEndian.Uint32(rec.Key)] = true
			} else {
				r.Bad++
			}
		})
		if err == nil {
			err = s.Commit([]record{newRecord(kindLease, groups*groupLen, 0), newRecord(kindReport, groups*groupLen+1, 0)})
		}
		if err == nil {
			err = s.Close()
		}
		r.End, r.Lost = "opened", groups*groupLen-len(have)
		if err != nil {
			r.End, r.Why = "refused", err.Error()
		}
		must(say.Encode(r))
		_ = os.RemoveAll(dir) // what did not open may still write
	}
}

// tryFrom runs a child from damage k on until it ends or hangs.
func tryFrom(t *testing.T, c candidate, dir string, k, n int) (done []trial) {
	cmd := child("damage", c, dir, k, n)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	hung := false
	timer := time.AfterFunc(time.Hour, func() { hung = true; _ = cmd.Process.Kill() })
	var r trial
	for dec := json.NewDecoder(out); ; {
		var next trial
		if dec.Decode(&next) != nil {
			break
		}
		timer.Reset(timeLimit)
		if r = next; r.End != "" {
			done = append(done, r)
		}
	}
	err = cmd.Wait()
	switch stopped := !timer.Stop(); {
	case err == nil:
		require.Len(t, done, n-k)
	case r.End != "" && len(done) < n-k || stopped && hung:
		require.Empty(t, r.End, "the child hung or ended between two trials: %s", stderr.String())
		r.End, r.Why = "hang", "killed after "+timeLimit.String()
		done = append(done, r)
	default:
		r.End, r.Why = "panic", firstLine(stderr.String())
		done = append(done, r)
	}
	return done
}

func firstLine(s string) string {
	for line := range strings.Lines(s) {
		if strings.Contains(line, "panic:") || strings.Contains(line, "fault") || strings.Contains(line, "fatal") {
			return strings.TrimSpace(line)
		}
	}
	return s[:min(len(s), 200)]
}

// TestDamage damages one place of one file of a store that was closed, and of one whose process was killed,
// and starts it. It fails at nothing: what it logs is its result.
func TestDamage(t *testing.T) {
	n := number(t, "USHER_TRIALS", 240)
	forAll(t, func(t *testing.T, c candidate) {
		for _, end := range []string{"closed", "killed"} {
			dir := filepath.Join(t.TempDir(), "store")
			require.NoError(t, os.MkdirAll(dir, 0o700))
			require.NoError(t, os.Mkdir(dir+".trials", 0o700))
			write(t, c, dir, func(line string) bool { return line == "all" && end == "killed" })
			var all []trial
			for len(all) < n {
				all = append(all, tryFrom(t, c, dir, len(all), n)...)
			}
			for _, kind := range []string{flip, cut, zero} {
				t.Logf("%-9s %s %-16s %s", c.name, end, kind, summary(all, kind))
			}
			t.Logf("%-9s %s %-16s %s", c.name, end, "all", summary(all, ""))
			whys := map[string]int{}
			digits := regexp.MustCompile(`"[^"]*"|/tmp/\S+|\b(0x)?[0-9a-f]*\d[0-9a-f]*\b`)
			for _, r := range all {
				if r.Why != "" {
					whys[r.End+": "+digits.ReplaceAllString(r.Why, "#")]++
				}
			}
			reasons := slices.SortedFunc(maps.Keys(whys), func(a, b string) int { return whys[b] - whys[a] })
			for _, why := range reasons[:min(len(reasons), 4)] {
				t.Logf("    %3d %.160s", whys[why], why)
			}
		}
	})
}

func summary(all []trial, kind string) string {
	ends, n, bad := map[string]int{}, 0, 0
	var lost []int
	for _, r := range all {
		if kind != "" && r.Kind != kind {
			continue
		}
		n++
		bad += r.Bad
		ends[r.End]++
		if r.End == "opened" {
			lost = append(lost, r.beyond())
		}
	}
	slices.Sort(lost)
	median, most := 0, 0
	if len(lost) > 0 {
		median, most = lost[len(lost)/2], lost[len(lost)-1]
	}
	return fmt.Sprintf("opens %3d of %3d, refused %3d, panics %3d, hangs %2d; lost beyond the hit: median %4d, most %4d; bad handed out %d",
		ends["opened"], n, ends["refused"], ends["panic"], ends["hang"], median, most, bad)
}
