package provision

import (
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func addrs(list ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range list {
		out = append(out, addr(s))
	}
	return out
}

func mac(s string) MAC {
	m, err := ParseMAC(s)
	if err != nil {
		panic(err)
	}
	return m
}

func testIP(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{100, 64 + byte(i>>16), byte(i >> 8), byte(i)})
}

// testInput makes n rows of n subscribers, 48 ports to a switch, 3% stopped and
// 3% paused, every fourth without a MAC.
func testInput(n int) Input {
	in := Input{Source: SourceDirect, FetchedAt: time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)}
	for i := range n {
		r := Binding{
			Subscriber: SubscriberID(1000 + i), IP: testIP(i), Device: DeviceID(1 + i/48), Port: uint32(1 + i%48),
			PortName: fmt.Sprintf("ge-0/0/%d", i%48), VLAN: uint16(100 + i%400),
		}
		if i%4 != 0 {
			r.MAC = MAC{0x02, 0, byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i)}
		}
		in.Bindings = append(in.Bindings, r)
		st := StateActive
		switch i % 33 {
		case 1:
			st = StateStop
		case 2:
			st = StatePause
		}
		in.Subscribers = append(in.Subscribers, Subscriber{r.Subscriber, st})
		if i%48 == 0 {
			in.Devices = append(in.Devices, Device{ID: r.Device, Name: fmt.Sprintf("sw-%d", r.Device),
				MAC: MAC{0, 0, 0x5e, 0, byte(r.Device >> 8), byte(r.Device)}, IP: netip.AddrFrom4([4]byte{198, 18, byte(r.Device >> 8), byte(r.Device)})})
		}
	}
	return in
}

// messyInput makes rows that clash in every way: few addresses, subscribers,
// ports and MACs, chosen at random.
func messyInput(rng *rand.Rand, n int) Input {
	in := Input{Source: SourceComposed, Subnets: []netip.Prefix{netip.MustParsePrefix("100.64.0.0/26"), netip.MustParsePrefix("100.64.0.64/27")},
		Reserved: addrs("100.64.0.1"), FetchedAt: time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)}
	for range n {
		r := Binding{Subscriber: SubscriberID(rng.IntN(12)), IP: testIP(rng.IntN(110)), Device: DeviceID(rng.IntN(4)), Port: uint32(rng.IntN(4))}
		if rng.IntN(20) == 0 {
			r.IP = netip.Addr{}
		}
		if rng.IntN(2) == 0 {
			r.MAC = MAC{0, 0, 0x5e, 0, 0x53, byte(rng.IntN(30))}
		}
		if rng.IntN(2) == 0 {
			r.PortName = fmt.Sprintf("eth%d", rng.IntN(4))
		}
		if rng.IntN(4) == 0 {
			r.VLAN = uint16(rng.IntN(3))
		}
		in.Bindings = append(in.Bindings, r)
		if rng.IntN(10) == 0 {
			in.Bindings = append(in.Bindings, r)
		}
	}
	for range 10 {
		in.Subscribers = append(in.Subscribers, Subscriber{SubscriberID(rng.IntN(11)), State(rng.IntN(4))})
	}
	for range 6 {
		in.Devices = append(in.Devices, Device{ID: DeviceID(rng.IntN(4)), MAC: MAC{0, 0, 0x5e, 0, 0x53, byte(rng.IntN(3))}, IP: testIP(250 + rng.IntN(3))})
	}
	return in
}

func shuffled(rng *rand.Rand, in Input) Input {
	in.Bindings = append([]Binding(nil), in.Bindings...)
	in.Subscribers = append([]Subscriber(nil), in.Subscribers...)
	in.Devices = append([]Device(nil), in.Devices...)
	rng.Shuffle(len(in.Bindings), func(i, j int) { in.Bindings[i], in.Bindings[j] = in.Bindings[j], in.Bindings[i] })
	rng.Shuffle(len(in.Subscribers), func(i, j int) {
		in.Subscribers[i], in.Subscribers[j] = in.Subscribers[j], in.Subscribers[i]
	})
	rng.Shuffle(len(in.Devices), func(i, j int) { in.Devices[i], in.Devices[j] = in.Devices[j], in.Devices[i] })
	return in
}

// build is Build of an input that must have no defect.
func build(t testing.TB, in Input) *Snapshot {
	t.Helper()
	s, problems := Build(in)
	require.Empty(t, problems)
	return s
}

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, seed)) }

func stopped(s *Snapshot) []netip.Addr {
	list, _ := s.Blocked()
	return list
}

func paused(s *Snapshot) []netip.Addr {
	_, list := s.Blocked()
	return list
}
