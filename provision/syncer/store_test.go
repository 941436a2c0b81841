package syncer

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/usher-agent/usher/bench/long"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/provisiontest"
	"github.com/usher-agent/usher/provision/statedir"
)

func requireSameSnapshot(t testing.TB, want, got *provision.Snapshot) {
	t.Helper()
	require.True(t, reflect.DeepEqual(want.Lines(), got.Lines()))
	require.True(t, reflect.DeepEqual(want.Contested(), got.Contested()))
	require.True(t, slices.Equal(want.Subscribers(), got.Subscribers()))
	require.True(t, slices.Equal(want.Devices(), got.Devices()))
	require.True(t, reflect.DeepEqual(want.LinesBySubscriber(), got.LinesBySubscriber()))
	require.Equal(t, want.Fingerprint(), got.Fingerprint())
	require.Equal(t, want.Counts(), got.Counts())
	require.True(t, want.FetchedAt().Equal(got.FetchedAt()))
}

func TestStoreKeepsEverything(t *testing.T) {
	path := filepath.Join(t.TempDir(), "snapshot")
	store := NewStore(path)
	_, err := store.Load()
	require.ErrorIs(t, err, fs.ErrNotExist)
	rng := rand.New(rand.NewPCG(9, 10))
	for round := range long.Times(t, 30, 5000) {
		in := provisiontest.MessyInput(rng, round%30*5)
		in.KeepVacant = round%2 == 1
		in.Lines = append(in.Lines, provision.Line{Subscriber: 7001, Device: 40, PortName: "Gi0/2\t"}, provision.Line{Subscriber: 7001, VLAN: 77}, provision.Line{Subscriber: 7002, MAC: provision.MAC{2, 1}})
		in.Devices = append(in.Devices, provision.Device{ID: 40, Name: "tab\there \"quoted\" \xff\n second line", Model: "DES-3200\t\n", IP: provisiontest.Addr("2001:db8::40")},
			provision.Device{ID: 41, IP: provisiontest.Addr("fe80::1%eth0")})
		in.Lines = append(in.Lines, provision.Line{Subscriber: 1<<63 - 1, Addresses: provision.Hosts4(provisiontest.IP(60)), Device: 1<<63 - 1, Port: 1<<32 - 1, VLAN: 1<<16 - 1, PortName: "Gi0/1\t\"x\""})
		want, _ := provision.Build(in)
		require.NoError(t, store.Save(want))
		got, err := store.Load()
		require.NoError(t, err)
		requireSameSnapshot(t, want, got)
		require.Equal(t, provision.SourceStored, got.Source())
	}
	files, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, files, 1, "nothing else is left behind")
}

// Subnets have lines of their own, that of a line with an address as well.
func TestStoreKeepsSubnets(t *testing.T) {
	net := func(s string) provision.Address {
		return provision.Address{Kind: provision.Routed4, Prefix: netip.MustParsePrefix(s)}
	}
	want, problems := provision.Build(provision.Input{
		KeepVacant:  true,
		Subscribers: []provision.Subscriber{{ID: 1, State: provision.StateStop}, {ID: 2, State: provision.StateActive}, {ID: 3, State: provision.StateActive}},
		Lines: []provision.Line{
			{Subscriber: 1, VLAN: 5, Addresses: []provision.Address{net("198.51.100.0/29")}},
			{Subscriber: 2, MAC: provision.MAC{2, 2}, Addresses: append(provision.Hosts4(provisiontest.Addr("192.0.2.2")), net("198.51.100.0/29"))},
			{Subscriber: 3, VLAN: 7, Addresses: []provision.Address{net("198.51.100.64/28")}},
		},
	})
	require.Len(t, problems, 1)
	var file bytes.Buffer
	require.NoError(t, encode(&file, want))
	require.Contains(t, file.String(), "\nb\t2\t192.0.2.2\t02:02:00:00:00:00\t0\t0\t0\t\nn\t2\t198.51.100.0/29\t02:02:00:00:00:00\t0\t0\t0\t\n"+
		"n\t3\t198.51.100.64/28\t\t0\t0\t7\t\nn\t1\t198.51.100.0/29\t\t0\t0\t5\t\na\t3\t\t0\t0\t7\t\ne\t8\t")
	got, err := decode(&file)
	require.NoError(t, err)
	requireSameSnapshot(t, want, got)
}

// A file of version 1 has no models; everything else in it is used.
func TestStoreReadsVersion1(t *testing.T) {
	body := "usher snapshot 1\nf\t2026-11-01T12:00:00Z\tdirect\nd\t7\t00:00:5e:00:53:f1\t192.0.2.70\t\"sw1\"\nb\t1\t192.0.2.3\t\t7\t4\t0\t\n"
	sum := crc32.Checksum([]byte(body), crc32.MakeTable(crc32.Castagnoli))
	snap, err := decode(strings.NewReader(body + fmt.Sprintf("e\t2\t%08x\n", sum)))
	require.NoError(t, err)
	require.Equal(t, []provision.Device{{ID: 7, Name: "sw1", MAC: provision.MAC{0, 0, 0x5e, 0, 0x53, 0xf1}, IP: provisiontest.Addr("192.0.2.70")}}, snap.Devices())
	require.Equal(t, 1, snap.ByPort(7, 4).Len())
}

func TestStoreBadFiles(t *testing.T) {
	var good bytes.Buffer
	snap := provisiontest.Build(t, provisiontest.Input(50))
	require.NoError(t, encode(&good, snap))
	text := good.String()
	lines := strings.SplitAfter(text, "\n")
	sealed := func(body string) string {
		return body + fmt.Sprintf("e\t%d\t%08x\n", strings.Count(body, "\n")-2, crc32.Checksum([]byte(body), crc32.MakeTable(crc32.Castagnoli)))
	}
	head := "usher snapshot 1\nf\t2026-11-01T12:00:00Z\tdirect\n"
	tests := []struct{ name, content, want string }{
		{"empty", "", "line 1: the file is cut off: no closing line"},
		{"foreign text", "hello\nworld\n", "line 1: not a stored snapshot of usher"},
		{"foreign binary", "\x7fELF\x02\x01\x01\n", "line 1: not a stored snapshot of usher"},
		{"one endless line", strings.Repeat("x", maxStoreLine+1), "line 1: line is longer than 65536 bytes"},
		{"newer version", strings.Replace(text, "snapshot 3\n", "snapshot 4\n", 1), "line 1: version 4 was written by a newer usher; this one reads up to 3"},
		{"no version", strings.Replace(text, "snapshot 3\n", "snapshot x\n", 1), `line 1: version "x" is not a number`},
		{"cut between lines", strings.Join(lines[:20], ""), "line 21: the file is cut off: no closing line"},
		{"cut within a line", strings.Join(lines[:20], "") + lines[20][:5], "line 21: the file is cut off within this line"},
		{"a line lost", strings.Join(slices.Delete(slices.Clone(lines), 10, 11), ""), "line 104: 101 records, the closing line says 102"},
		{"a flipped digit", strings.Replace(text, "\t100.64.0.7\t", "\t100.64.0.8\t", 1), "the file is damaged"},
		{"text after the end", text + "more\n", "line 106: text after the closing line"},
		{"bad address", sealed(head + "b\t1\t192.0.2.300\t\t0\t0\t0\t\n"), `line 3: address "192.0.2.300" cannot be read`},
		{"IPv6 binding", sealed(head + "b\t1\t2001:db8::1\t\t0\t0\t0\t\n"), "line 3: binding without an IPv4 address"},
		{"bad mac", sealed(head + "b\t1\t192.0.2.3\t00:00\t0\t0\t0\t\n"), `line 3: mac "00:00": 4 hex digits, want 12`},
		{"big port", sealed(head + "b\t1\t192.0.2.3\t\t0\t4294967296\t0\t\n"), `line 3: port "4294967296" is not a number from 0 to 4294967295`},
		{"no subscriber", sealed(head + "b\t0\t192.0.2.3\t\t0\t0\t0\t\n"), `line 3: subscriber id "0" is not a number`},
		{"missing field", sealed(head + "b\t1\t192.0.2.3\n"), "line 3: mac is missing"},
		{"too many fields", sealed(head + "s\t1\tactive\tx\n"), `line 3: text after the last field: "x"`},
		{"bad state", sealed(head + "s\t1\tgone\n"), `line 3: state "gone"`},
		{"bad name", sealed(head + "d\t1\t\t\tname\n"), "line 3: name name is not a quoted text"},
		{"bad time", sealed("usher snapshot 1\nf\tyesterday\tdirect\n"), "line 2: time of the fetch"},
		{"unknown line", sealed(head + "z\t1\n"), `line 3: unknown kind of line "z"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "snapshot")
			require.NoError(t, os.WriteFile(path, []byte(tt.content), 0o600))
			snap, err := NewStore(path).Load()
			require.Nil(t, snap)
			require.ErrorContains(t, err, "stored snapshot "+path+": ")
			assert.ErrorContains(t, err, tt.want)
			assert.ErrorContains(t, err, "kept as snapshot.bad")
			kept, rerr := os.ReadFile(path + ".bad")
			require.NoError(t, rerr)
			assert.Equal(t, tt.content, string(kept))
			_, err = NewStore(path).Load()
			assert.ErrorIs(t, err, fs.ErrNotExist, "the next start finds no file")
		})
	}
}

func TestTwoDamagedSnapshots(t *testing.T) {
	path := filepath.Join(t.TempDir(), "snapshot")
	store := NewStore(path)
	for _, c := range []struct{ text, name string }{{"first", "snapshot.bad"}, {"second", "snapshot.bad.2"}} {
		require.NoError(t, os.WriteFile(path, []byte(c.text), 0o600))
		_, err := store.Load()
		require.ErrorContains(t, err, "; kept as "+c.name)
		require.NoError(t, store.Save(provisiontest.Build(t, provisiontest.Input(3))))
	}
	requireContent(t, "first", path+".bad")
	requireContent(t, "second", path+".bad.2")
}

// A whole file of a newer usher is neither used nor put aside.
func TestStoreRefusesNewerFile(t *testing.T) {
	body := "usher snapshot 4\nf\t2026-11-01T12:00:00Z\tdirect\nq\tsomething new\n"
	text := body + fmt.Sprintf("e\t1\t%08x\n", crc32.Checksum([]byte(body), crc32.MakeTable(crc32.Castagnoli)))
	path := filepath.Join(t.TempDir(), "snapshot")
	for i := 0; i <= len(text); i++ {
		require.NoError(t, os.WriteFile(path, []byte(text[:i]), 0o600))
		_, err := NewStore(path).Load()
		require.Error(t, err)
		if i < len(text) {
			require.NotErrorAs(t, err, new(*statedir.NewerError), "cut to %d bytes it is damaged", i)
			require.FileExists(t, path+".bad")
			continue
		}
		require.ErrorAs(t, err, new(*statedir.NewerError))
		require.ErrorContains(t, err, path+" has snapshot format 4, this usher reads up to 3: a newer usher wrote it")
	}
	kept, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, text, string(kept))
}

// What the version before wrote is read, and written again row for row.
func TestStoreOfTheVersionBefore(t *testing.T) {
	want, err := os.ReadFile(filepath.Join("testdata", "snapshot3"))
	require.NoError(t, err)
	dir := t.TempDir()
	path := filepath.Join(dir, "snapshot")
	require.NoError(t, os.WriteFile(path, want, 0o600))
	snap, err := NewStore(path).Load()
	require.NoError(t, err)
	require.Equal(t, 2, snap.Len())
	require.Equal(t, 1, snap.Counts().Seats)
	require.NoError(t, NewStore(path).Save(snap))
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	rows := func(text []byte) []string { // without the source and the checksum, which tell that it was stored
		lines := strings.Split(string(text), "\n")
		return append([]string{lines[0]}, lines[2:len(lines)-2]...)
	}
	require.Len(t, rows(want), 8)
	require.Equal(t, rows(want), rows(got))
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, left, 1, "no copy of what every version reads")
}

// A file that only an older usher could have written is kept once it is replaced by
// one that it cannot read.
func TestStoreKeepsOlderFile(t *testing.T) {
	body := "usher snapshot 1\nf\t2026-11-01T12:00:00Z\tdirect\nb\t1\t192.0.2.3\t\t7\t4\t0\t\n"
	old := body + fmt.Sprintf("e\t1\t%08x\n", crc32.Checksum([]byte(body), crc32.MakeTable(crc32.Castagnoli)))
	path := filepath.Join(t.TempDir(), "snapshot")
	require.NoError(t, os.WriteFile(path, []byte(old), 0o600))
	store := NewStore(path)
	snap, err := store.Load()
	require.NoError(t, err)

	// Where there is no room for the copy nothing is written.
	require.NoError(t, os.Symlink("/dev/full", path+".format1.tmp"))
	require.ErrorIs(t, store.Save(snap), syscall.ENOSPC)
	kept, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, old, string(kept))
	require.NoFileExists(t, path+".format1")

	require.NoError(t, store.Save(snap))
	require.NoError(t, store.Save(snap))
	kept, err = os.ReadFile(path + ".format1")
	require.NoError(t, err)
	require.Equal(t, old, string(kept))
	require.NoFileExists(t, path+".format1.2")
	_, err = store.Load()
	require.NoError(t, err)
}

// A file cut anywhere is refused, never read as a smaller network.
func TestStoreCutAnywhere(t *testing.T) {
	var good bytes.Buffer
	require.NoError(t, encode(&good, provisiontest.Build(t, provisiontest.Input(8))))
	for n := range good.Len() {
		_, err := decode(bytes.NewReader(good.Bytes()[:n]))
		require.Error(t, err, "cut after %d bytes", n)
	}
}

type brokenReader struct{ err error }

func (r brokenReader) Read([]byte) (int, error) { return 0, r.err }

func TestStoreErrors(t *testing.T) {
	disk := errors.New("input/output error")
	_, err := decode(brokenReader{disk})
	require.ErrorIs(t, err, disk)
	var format *formatError
	require.NotErrorAs(t, err, &format, "a disk error is no reason to throw the file away")

	dir := t.TempDir()
	snap := provisiontest.Build(t, provisiontest.Input(3))
	err = NewStore(filepath.Join(dir, "missing", "snapshot")).Save(snap)
	require.ErrorIs(t, err, fs.ErrNotExist)

	path := filepath.Join(dir, "snapshot")
	store := NewStore(path)
	require.NoError(t, store.Save(snap))
	in := provisiontest.Input(3)
	in.Lines[0].PortName = strings.Repeat("x", maxStoreLine)
	long, _ := provision.Build(in)
	require.ErrorContains(t, store.Save(long), "too long")
	got, err := store.Load()
	require.NoError(t, err, "a failed save leaves the old file")
	requireSameSnapshot(t, snap, got)
	_, err = os.Stat(path + ".tmp")
	require.ErrorIs(t, err, fs.ErrNotExist)
}

// A process killed while it wrote leaves a part of a temporary file.
func TestStoreAfterKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "snapshot")
	store := NewStore(path)
	first, second := provisiontest.Build(t, provisiontest.Input(30)), provisiontest.Build(t, provisiontest.Input(3))
	require.NoError(t, store.Save(first))
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path+".tmp", content[:len(content)/2], 0o600))
	got, err := store.Load()
	require.NoError(t, err)
	requireSameSnapshot(t, first, got)
	require.NoError(t, store.Save(second), "shorter than what is left there")
	got, err = store.Load()
	require.NoError(t, err)
	requireSameSnapshot(t, second, got)
}

// /dev/full says "no space left on device" to every write.
func TestStoreFullDisk(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		if os.Getenv("USHER_REQUIRE_KERNEL") == "1" {
			t.Fatal("needs /dev/full: ", err)
		}
		t.Skip("needs /dev/full: ", err)
	}
	path := filepath.Join(t.TempDir(), "snapshot")
	require.NoError(t, os.Symlink("/dev/full", path+".tmp"))
	err := NewStore(path).Save(provisiontest.Build(t, provisiontest.Input(3)))
	require.ErrorContains(t, err, "no space left on device")
	_, err = os.Stat(path)
	require.ErrorIs(t, err, fs.ErrNotExist)
}

func FuzzStoreDecode(f *testing.F) {
	var good bytes.Buffer
	if err := encode(&good, provisiontest.Build(f, provisiontest.Input(3))); err != nil {
		f.Fatal(err)
	}
	body := good.Bytes()
	f.Add(body)
	f.Add(body[:bytes.LastIndex(body, []byte("\ne\t"))+1])
	f.Add([]byte("usher snapshot 1\nb\t1\t192.0.2.3\t\t0\t0\t0\t\"a\\x00\"\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		seal := fmt.Appendf(slices.Clone(data), "e\t%d\t%08x\n", bytes.Count(data, []byte("\n"))-2, crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)))
		for _, in := range [][]byte{data, seal} {
			s, err := decode(bytes.NewReader(in))
			if err != nil {
				continue
			}
			var again bytes.Buffer
			if err := encode(&again, s); err != nil {
				t.Fatal(err)
			}
			s2, err := decode(bytes.NewReader(again.Bytes()))
			if err != nil {
				t.Fatal(err)
			}
			if s.Fingerprint() != s2.Fingerprint() {
				t.Fatal("a second pass through the file changed the content")
			}
		}
	})
}

func BenchmarkStore100k(b *testing.B) {
	s, _ := provision.Build(provisiontest.Input(100_000))
	store := NewStore(filepath.Join(b.TempDir(), "snapshot"))
	b.Run("save", func(b *testing.B) {
		for b.Loop() {
			if err := store.Save(s); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("load", func(b *testing.B) {
		for b.Loop() {
			if _, err := store.Load(); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// Customers' subnets are stored with what they are disputed by; so are they told from subnets of a line.
func TestStoreKeepsSubnetsOfCustomers(t *testing.T) {
	want, problems := provision.Build(provision.Input{
		Subscribers: []provision.Subscriber{{ID: 1, State: provision.StateStop}, {ID: 2, State: provision.StateActive}},
		Lines:       []provision.Line{{Subscriber: 1, Addresses: provision.Hosts4(provisiontest.Addr("192.0.2.2"))}},
		CustomerSubnets: []provision.Subnet{
			{Prefix: netip.MustParsePrefix("203.0.113.8/29"), Subscriber: 1}, {Prefix: netip.MustParsePrefix("198.51.100.0/24"), Subscriber: 1},
			{Prefix: netip.MustParsePrefix("198.51.100.0/24"), Subscriber: 2},
		},
	})
	require.Len(t, problems, 1)
	var file bytes.Buffer
	require.NoError(t, encode(&file, want))
	require.Contains(t, file.String(), "\nn\t1\t203.0.113.8/29\t\t0\t0\t0\t\n")
	got, err := decode(&file)
	require.NoError(t, err)
	requireSameSnapshot(t, want, got)
	require.Equal(t, want.SubnetClaims(), got.SubnetClaims())
	require.Equal(t, want.CustomerSubnets(), got.CustomerSubnets())
	require.Empty(t, got.BySubscriber(2), "a subnet is on no line")
}

// An answer that loses many customers' subnets is held as one that loses their addresses is.
func TestGuardHoldsTheLossOfSubnets(t *testing.T) {
	in := provisiontest.Input(100)
	for i := range 50 {
		in.CustomerSubnets = append(in.CustomerSubnets, provision.Subnet{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(i * 4)}), 30), Subscriber: in.Lines[i].Subscriber})
	}
	old, _ := provision.Build(in)
	limits := GuardLimits{MaxRemoved: .1, MaxMoved: .1, MaxBlocked: .1, MinChanged: 20}
	same, _ := provision.Build(in)
	require.False(t, Compare(old, same, limits).Hold)
	in.CustomerSubnets = nil
	without, _ := provision.Build(in)
	d := Compare(old, without, limits)
	require.True(t, d.Hold)
	require.Equal(t, 50, d.Moved.Count)
}

// A gateway in a customer's subnet stays nobody's over a restart: the relay that has it is none of his.
func TestStoredSubnetsHaveNoGateways(t *testing.T) {
	in := provisiontest.Input(3)
	gateway := provisiontest.Addr("203.0.113.9")
	in.Subnets, in.Reserved = append(in.Subnets, netip.MustParsePrefix("203.0.113.8/29")), append(in.Reserved, gateway)
	in.CustomerSubnets = []provision.Subnet{{Prefix: netip.MustParsePrefix("203.0.113.8/29"), Subscriber: in.Subscribers[0].ID}}
	snap, _ := provision.Build(in)
	require.Len(t, snap.CustomerSubnets(), 1)
	store := NewStore(filepath.Join(t.TempDir(), "snapshot"))
	require.NoError(t, store.Save(snap))
	s := New(Options{Reserved: in.Reserved}, &fakeERP{}, store, nil, provisiontest.Quiet())
	require.NoError(t, s.LoadStored())
	require.True(t, s.Current().SameSubnets(snap))
	require.False(t, s.Current().Taken(gateway))
	require.True(t, s.Current().Taken(gateway.Next()))
}
