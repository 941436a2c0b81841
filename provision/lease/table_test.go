package lease

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/bench/long"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/wal"
)

var (
	testNow = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	ip7     = netip.MustParseAddr("192.0.2.7")
	mac1    = provision.MAC{0, 0, 0x5e, 0, 0x53, 1}
	mac2    = provision.MAC{0, 0, 0x5e, 0, 0x53, 2}
)

// openStore opens the store in the directory of path.
func openStore(t testing.TB, path string) *logStore {
	t.Helper()
	store, err := OpenStore(t.Context(), filepath.Dir(path), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(func() { _ = store.Close() })
	return store.(*logStore)
}

func openTable(t testing.TB, store Store) *Table {
	t.Helper()
	tab, err := Open(store)
	require.NoError(t, err)
	return tab
}

// commit stores rec as a Journal does.
func (t *Table) commit(rec Record) error { return Journal{Table: t}.Commit([]Commit{{Lease: rec}}) }

func testRecord(ip netip.Addr) Record {
	return Record{
		IP: ip, MAC: mac1, ClientID: Hex{1, 2, 3}, Subscriber: 42, Device: 9, Port: 5,
		Option82: Hex{1, 1, 'x'}, Pool: "guests", GIAddr: netip.MustParseAddr("198.51.100.1"), Ifindex: 3, Interface: "eth0",
		State: StateBound, Start: testNow, Renewed: testNow, Expires: testNow.Add(time.Hour),
	}
}

func TestRecordSurvivesEncoding(t *testing.T) {
	full := testRecord(ip7)
	vacant := testRecord(ip7)
	vacant.Key = provision.MAC{3, 1, 2, 3, 4, 5}.Owner()
	bare := Record{IP: ip7, State: StateReleased, Start: testNow, Renewed: testNow, Expires: testNow}
	told := bare
	told.ERP = ERPMACs{Direct: ERPMAC{mac1, 1_800_000_000_000_000_001}, Composed: ERPMAC{At: 5}, Sent: [maxSent]provision.MAC{{2, 1}, {2, 2}, {2, 3}, {2, 4}}}
	for _, want := range []Record{full, vacant, bare, told} {
		got, err := decode(keyBytes(ipKey(want.IP)), encode(nil, &want))
		require.NoError(t, err)
		if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}, provision.Owner{})); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

// The stored form is the same in every version that can write it: a downgrade reads it.
func TestEncodingIsPinned(t *testing.T) {
	rec := testRecord(ip7)
	rec.Key = provision.MAC{3, 1, 2, 3, 4, 5}.Owner()
	told := rec
	told.ERP = ERPMACs{Direct: ERPMAC{mac1, 1}, Composed: ERPMAC{At: 2}, Sent: [maxSent]provision.MAC{{2, 7}}}
	assert.Equal(t, "040100005e005301000000000000002a000000000000000900000005c6336401000000030000019de368f6000000019de368f6000000019de39fe480"+
		"000465746830"+"0003010203"+"0003010178"+"0006677565737473"+"0006030102030405"+
		"0025"+"6400005e0053010000000000000001"+"630000000000000000000000000002"+"73020700000000"+"3d598781", hex.EncodeToString(encode(nil, &told)))
	text, err := json.Marshal(rec)
	require.NoError(t, err)
	assert.Contains(t, string(text), `"key":"03:01:02:03:04:05"`)
	rec.Key = provision.Owner{}
	text, err = json.Marshal(rec)
	require.NoError(t, err)
	assert.NotContains(t, string(text), `"key"`)
}

// Records of the version before pools are read as they were written.
func TestRecordsWithoutPoolAreStillRead(t *testing.T) {
	const stored = "0101" + "00005e005301" + "000000000000002a" + "0000000000000009" + "00000005" + "c6336401" + "00000003" +
		"0000019de368f600" + "0000019de368f600" + "0000019de39fe480" + // 2026-05-01 12:00, and an hour later
		"0004" + "65746830" + "0003" + "010203" + "0003" + "010178"
	body, err := hex.DecodeString(stored)
	require.NoError(t, err)
	v := binary.BigEndian.AppendUint32(body, checksum(ipKey(ip7), body))
	got, err := decode(keyBytes(ipKey(ip7)), v)
	require.NoError(t, err)
	want := testRecord(ip7)
	want.Pool = ""
	assert.Equal(t, want, got)

	// The version after it has the pool, but no key.
	body[0] = 2
	body = append(body, append([]byte{0, 6}, "guests"...)...)
	got, err = decode(keyBytes(ipKey(ip7)), binary.BigEndian.AppendUint32(body, checksum(ipKey(ip7), body)))
	require.NoError(t, err)
	assert.Equal(t, testRecord(ip7), got)
	assert.Equal(t, mac1.Owner(), got.Holder())
}

func TestQuarantineEnds(t *testing.T) {
	tab := New()
	rec := testRecord(ip7)
	rec.State = StateQuarantined
	tab.Store(rec)
	assert.Equal(t, Counts{Quarantined: 1}, tab.Counts(testNow))
	assert.Equal(t, Counts{Expired: 1}, tab.Counts(rec.Expires))
	assert.False(t, rec.Live(testNow))
}

func TestBadStoredRecordsAreNamedAndSkipped(t *testing.T) {
	rec := testRecord(ip7)
	good := encode(nil, &rec)
	flipped := slices.Clone(good)
	flipped[20] ^= 1
	newer := slices.Clone(good)
	newer[0] = 5
	store := openStore(t, filepath.Join(t.TempDir(), "state.db"))
	openTable(t, store)
	require.NoError(t, store.wal.Load().Commit(func(f *wal.Frames) error {
		put := func(key, value []byte) { f.Put(wal.Record{Kind: kindLease, Key: key, Value: value}) }
		put(keyBytes(0xc0000207), good)
		put(keyBytes(0xc0000208), good) // another key than the checksum is for
		put(keyBytes(0xc0000209), flipped)
		put(keyBytes(0xc000020a), newer)
		put(keyBytes(0xc000020b), good[:10])
		put(keyBytes(0xc000020c), nil)
		put([]byte("x"), good)
		return nil
	}))
	tab := openTable(t, store)
	assert.Equal(t, 1, tab.Len())
	_, ok := tab.Get(ip7)
	assert.True(t, ok)
	n, why := tab.Skipped()
	assert.Equal(t, 6, n)
	assert.Equal(t, []string{
		"bad stored lease 192.0.2.8: checksum does not match",
		"bad stored lease 192.0.2.9: checksum does not match",
		"bad stored lease 192.0.2.10: version 5, want up to 4",
		"bad stored lease 192.0.2.11: 10 bytes",
		"bad stored lease 192.0.2.12: empty",
		"bad stored lease: key of 1 bytes, want 4",
	}, why)
}

func TestTableSurvivesReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	store := openStore(t, path)
	tab := openTable(t, store)

	durable := testRecord(ip7)
	tab.Store(durable)
	require.NoError(t, tab.commit(durable))
	lazy := testRecord(ip7.Next())
	tab.Store(lazy)
	tab.Dirty(lazy.IP)
	lost := testRecord(ip7.Next().Next()) // stored in memory only
	tab.Store(lost)
	require.True(t, tab.Renew(ip7, mac1, testNow.Add(time.Minute), testNow.Add(2*time.Hour)))
	assert.Equal(t, 2, tab.Counts(testNow).Dirty)
	require.NoError(t, tab.Flush())
	assert.Zero(t, tab.Counts(testNow).Dirty)
	require.NoError(t, store.Close())

	tab = openTable(t, openStore(t, path))
	assert.Equal(t, 2, tab.Len())
	got, ok := tab.Get(ip7)
	require.True(t, ok)
	assert.Equal(t, testNow.Add(2*time.Hour), got.Expires)
	assert.Equal(t, testNow, got.Start)
	_, ok = tab.Get(lazy.IP)
	assert.True(t, ok)
}

func TestCommitNeverGoesBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	store := openStore(t, path)
	tab := openTable(t, store)
	old := testRecord(ip7)
	tab.Store(old)
	require.True(t, tab.Renew(ip7, mac1, testNow.Add(time.Minute), testNow.Add(2*time.Hour)))
	require.NoError(t, tab.Flush())
	// The commit of the first ACK comes late: the disk was slow.
	require.NoError(t, tab.commit(old))
	require.NoError(t, store.Close())
	got, _ := openTable(t, openStore(t, path)).Get(ip7)
	assert.Equal(t, testNow.Add(2*time.Hour), got.Expires)
}

func TestBatchRefusesNoAddress(t *testing.T) {
	store := openStore(t, filepath.Join(t.TempDir(), "state.db"))
	tab := openTable(t, store)
	_, err := tab.add(new(Batch), &Record{})
	assert.ErrorContains(t, err, "not an IPv4 address")
	tab.Store(Record{})
	assert.Zero(t, tab.Len())
}

func TestFailedFlushIsTriedAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	store := openStore(t, path)
	tab := openTable(t, store)
	tab.Store(testRecord(ip7))
	tab.Dirty(ip7)
	require.NoError(t, store.Close())
	require.ErrorIs(t, tab.Flush(), wal.ErrClosed)
	assert.Equal(t, 1, tab.Counts(testNow).Dirty)
	tab.store = openStore(t, path)
	require.NoError(t, tab.Flush())
	assert.Zero(t, tab.Counts(testNow).Dirty)
}

func TestStates(t *testing.T) {
	tab := New()
	tab.Store(testRecord(ip7))
	assert.False(t, tab.Renew(ip7, mac2, testNow, testNow), "another client's lease")
	assert.False(t, tab.SetState(ip7, mac2, StateReleased, testNow), "another client's lease")
	assert.False(t, tab.Renew(ip7.Next(), mac1, testNow, testNow), "no lease")
	assert.Equal(t, Counts{Bound: 1}, tab.Counts(testNow))
	assert.Equal(t, Counts{Expired: 1}, tab.Counts(testNow.Add(time.Hour)))
	assert.True(t, tab.SetState(ip7, mac1, StateReleased, testNow))
	assert.Equal(t, Counts{Released: 1}, tab.Counts(testNow))
	assert.False(t, tab.Renew(ip7, mac1, testNow, testNow.Add(time.Hour)), "a released lease is not renewed")
	assert.True(t, tab.SetState(ip7, mac1, StateDeclined, testNow))
	assert.Equal(t, Counts{Declined: 1}, tab.Counts(testNow))
	rec, _ := tab.Get(ip7)
	assert.False(t, rec.Live(testNow))
	assert.Equal(t, testNow, rec.Expires)
	for s := StateBound; s <= StateQuarantined; s++ {
		var back State
		require.NoError(t, back.UnmarshalText([]byte(s.String())))
		assert.Equal(t, s, back)
	}
	assert.Error(t, new(State).UnmarshalText([]byte("offered")))
}

func TestFind(t *testing.T) {
	tab := New()
	a, b, c := testRecord(ip7.Next()), testRecord(ip7), testRecord(ip7.Next().Next())
	c.MAC, c.Subscriber = mac2, 43
	for _, r := range []Record{a, b, c} {
		tab.Store(r)
	}
	assert.Equal(t, []Record{b, a}, tab.ByMAC(mac1))
	assert.Equal(t, []Record{c}, tab.BySubscriber(43))
	assert.Len(t, slices.Collect(tab.All()), 3)
	b.Expires = b.Expires.Add(time.Hour)
	tab.Store(b)
	assert.Equal(t, []Record{a, b}, slices.Collect(tab.InRange(ip7, ip7.Next())), "what ends first")
	for range tab.All() {
		break // stopping early must work
	}
}

// The indexes follow every change, also of who has an address.
func TestFindFollowsChanges(t *testing.T) {
	tab := New()
	at := func(found []Record) (list []string) {
		for _, r := range found {
			list = append(list, r.IP.String())
		}
		return list
	}
	a, b := testRecord(ip7), testRecord(ip7.Next())
	a.ClientID, b.ClientID = Hex("one"), Hex("one")
	tab.Store(b)
	tab.Store(a)
	tab.Store(a)
	assert.Equal(t, []string{a.IP.String(), b.IP.String()}, at(tab.ByMAC(mac1)))
	assert.Equal(t, []string{a.IP.String(), b.IP.String()}, at(tab.ByClientID([]byte("one"))))
	a.MAC, a.ClientID = mac2, nil
	tab.Store(a)
	assert.Equal(t, []string{b.IP.String()}, at(tab.ByMAC(mac1)))
	assert.Equal(t, []string{a.IP.String()}, at(tab.ByMAC(mac2)))
	assert.Equal(t, []string{b.IP.String()}, at(tab.ByClientID([]byte("one"))))
	assert.Empty(t, tab.ByClientID(nil))
	assert.Equal(t, 2, tab.Prune(testNow.Add(2*Grace), 10))
	assert.Empty(t, tab.ByMAC(mac1))
	assert.Empty(t, tab.ByClientID([]byte("one")))
	assert.Zero(t, tab.byMAC.n)
	assert.Zero(t, tab.byID.n)

	path := filepath.Join(t.TempDir(), "state.db")
	store := openStore(t, path)
	tab = openTable(t, store)
	tab.Store(b)
	tab.Dirty(b.IP)
	require.NoError(t, tab.Flush())
	require.NoError(t, store.Close())
	tab = openTable(t, openStore(t, path))
	assert.Equal(t, []string{b.IP.String()}, at(tab.ByMAC(mac1)), "from disk")
	assert.Equal(t, []string{b.IP.String()}, at(tab.ByClientID([]byte("one"))))
}

func TestPruneKeepsTheGraceAndItsBound(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	store := openStore(t, path)
	tab := openTable(t, store)
	for i, ip := 0, ip7; i < 10; i, ip = i+1, ip.Next() {
		tab.Store(testRecord(ip))
		tab.Dirty(ip)
	}
	require.NoError(t, tab.Flush())
	end := testNow.Add(time.Hour)
	assert.Zero(t, tab.Prune(end.Add(Grace), 100))
	assert.Equal(t, 4, tab.Prune(end.Add(Grace+time.Second), 4))
	assert.Equal(t, 6, tab.Prune(end.Add(Grace+time.Second), 100))
	require.NoError(t, tab.Flush())
	require.NoError(t, store.Close())
	assert.Zero(t, openTable(t, openStore(t, path)).Len())
}

func TestRunFlushesEveryIntervalAndAtTheEnd(t *testing.T) {
	store := OpenMemory()
	synctest.Test(t, func(t *testing.T) {
		tab := openTable(t, store)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- tab.Run(ctx, time.Second, func(err error) { t.Errorf("flush: %v", err) }) }()
		rec := testRecord(ip7)
		rec.Renewed, rec.Expires = time.Now(), time.Now().Add(48*time.Hour)
		tab.Store(rec)
		tab.Dirty(ip7)
		time.Sleep(time.Second + time.Millisecond) // fake time
		synctest.Wait()
		assert.Zero(t, tab.Counts(time.Now()).Dirty)
		tab.SetState(ip7, mac1, StateReleased, time.Now())
		cancel()
		require.NoError(t, <-done)
		assert.Zero(t, tab.Counts(time.Now()).Dirty)
	})
	rec, ok := openTable(t, store).Get(ip7)
	require.True(t, ok)
	assert.Equal(t, StateReleased, rec.State)
}

func TestRunTellsErrors(t *testing.T) {
	store := OpenMemory()
	synctest.Test(t, func(t *testing.T) {
		tab := openTable(t, store)
		require.NoError(t, store.Close())
		tab.Store(testRecord(ip7))
		tab.Dirty(ip7)
		ctx, cancel := context.WithCancel(t.Context())
		errs := make(chan error, 10)
		done := make(chan error, 1)
		go func() { done <- tab.Run(ctx, time.Second, func(err error) { errs <- err }) }()
		assert.ErrorIs(t, <-errs, errClosed)
		assert.ErrorIs(t, <-errs, errClosed)
		cancel()
		assert.ErrorIs(t, <-done, errClosed)
	})
}

// Random operations against a plain map, with reopening in between.
func TestTableAgainstModel(t *testing.T) {
	dir := t.TempDir()
	open := func() (Store, *Table) { // nothing holds on to what was opened before: that is thousands of tables
		store, err := OpenStore(t.Context(), dir, slog.New(slog.DiscardHandler))
		require.NoError(t, err)
		return store, openTable(t, store)
	}
	store, tab := open()
	defer func() { _ = store.Close() }()
	model := map[netip.Addr]Record{}
	rnd := rand.New(rand.NewPCG(1, 2))
	now := testNow
	steps := long.Times(t, 3000, 100_000)
	reopen := 50 // a start syncs several files
	if steps > 3000 {
		reopen = 10
	}
	for step := range steps {
		now = now.Add(time.Second)
		ip := netip.AddrFrom4([4]byte{192, 0, 2, byte(rnd.IntN(20))})
		mac := mac1
		if rnd.IntN(2) == 0 {
			mac = mac2
		}
		switch rnd.IntN(7) {
		case 0, 1:
			r := testRecord(ip)
			r.MAC, r.Renewed, r.Expires = mac, now, now.Add(time.Hour)
			tab.Store(r)
			if rnd.IntN(2) == 0 {
				require.NoError(t, tab.commit(r))
			} else {
				tab.Dirty(ip)
			}
			model[ip] = r
		case 2:
			r, ok := model[ip]
			ok = ok && r.MAC == mac && (r.State == StateBound || r.Kept(now))
			assert.Equal(t, ok, tab.Renew(ip, mac, now, now.Add(2*time.Hour)))
			if ok {
				r.State, r.Renewed, r.Expires = StateBound, now, now.Add(2*time.Hour)
				model[ip] = r
			}
		case 3:
			r, ok := model[ip]
			ok = ok && r.MAC == mac
			assert.Equal(t, ok, tab.SetState(ip, mac, StateReleased, now))
			if ok {
				r.State, r.Renewed = StateReleased, now
				if r.Expires.After(now) {
					r.Expires = now
				}
				model[ip] = r
			}
		case 6:
			r, ok := model[ip]
			ok = ok && r.MAC == mac && r.Live(now)
			assert.Equal(t, ok, tab.Keep(ip, mac, StateReleased, now))
			if ok {
				r.State, r.Renewed = StateReleased, now
				model[ip] = r
			}
		case 4:
			require.NoError(t, tab.Flush())
		case 5:
			if step%reopen != 0 {
				continue
			}
			require.NoError(t, tab.Flush())
			require.NoError(t, store.Close())
			store, tab = open()
		}
	}
	got := map[netip.Addr]Record{}
	for r := range tab.All() {
		got[r.IP] = r
	}
	require.Equal(t, len(model), len(got))
	for ip := range maps.Keys(model) {
		assert.Equal(t, model[ip], got[ip])
	}
}

func FuzzDecode(f *testing.F) {
	rec := testRecord(ip7)
	f.Add([]byte{192, 0, 2, 7}, encode(nil, &rec))
	f.Add([]byte{192, 0, 2, 7}, []byte{1})
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, k, v []byte) {
		sealed := bytes.Clone(v) // or nothing that differs gets past the checksum
		if n := len(v) - crcLen; n >= 0 && len(k) == 4 {
			sealed = binary.BigEndian.AppendUint32(sealed[:n], checksum(binary.BigEndian.Uint32(k), sealed[:n]))
		}
		for _, v := range [][]byte{v, sealed} {
			r, err := decode(k, v)
			if err != nil {
				require.ErrorIs(t, err, errRecord)
				continue
			}
			again, err := decode(k, encode(nil, &r))
			require.NoError(t, err)
			require.Equal(t, r, again)
		}
	})
}

func FuzzDecodeReport(f *testing.F) {
	k, v := encodeReport(provision.MACReport{IP: ip7, MAC: mac1, Subscriber: 1001, At: time.Unix(1, 2)})
	f.Add(k, v)
	f.Add(k, v[:10])
	f.Add([]byte{}, []byte{})
	f.Add(netip.MustParseAddr("2001:db8::1").AsSlice(), v)
	f.Fuzz(func(t *testing.T, key, value []byte) {
		r, err := decodeReport(key, value)
		if err != nil {
			return
		}
		k, v := encodeReport(r)
		if !bytes.Equal(k, key) || !bytes.Equal(v, value) {
			t.Fatalf("%x %x came back as %x %x", key, value, k, v)
		}
	})
}
