// Package provisiontest makes inputs and snapshots for the tests of what works on them.
package provisiontest

import (
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
)

// Quiet returns a log that nobody reads.
func Quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// Addr returns the address that s stands for.
func Addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// Addrs returns the addresses that list stands for.
func Addrs(list ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range list {
		out = append(out, Addr(s))
	}
	return out
}

// MAC returns the MAC that s stands for.
func MAC(s string) provision.MAC {
	m, err := provision.ParseMAC(s)
	if err != nil {
		panic(err)
	}
	return m
}

// IP returns the address of row i of Input.
func IP(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{100, 64 + byte(i>>16), byte(i >> 8), byte(i)})
}

// Input makes n rows of n subscribers, 48 ports to a switch, 3% stopped and
// 3% paused, every fourth without a MAC.
func Input(n int) provision.Input {
	in := provision.Input{Source: provision.SourceDirect, FetchedAt: time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)}
	for i := range n {
		r := provision.Line{
			Subscriber: provision.SubscriberID(1000 + i), Addresses: provision.Hosts4(IP(i)), Device: provision.DeviceID(1 + i/48), Port: uint32(1 + i%48),
			PortName: fmt.Sprintf("ge-0/0/%d", i%48), VLAN: uint16(100 + i%400),
		}
		if i%4 != 0 {
			r.MAC = provision.MAC{0x02, 0, byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i)}
		}
		in.Lines = append(in.Lines, r)
		st := provision.StateActive
		switch i % 33 {
		case 1:
			st = provision.StateStop
		case 2:
			st = provision.StatePause
		}
		in.Subscribers = append(in.Subscribers, provision.Subscriber{ID: r.Subscriber, State: st})
		if i%48 == 0 {
			in.Devices = append(in.Devices, provision.Device{ID: r.Device, Name: fmt.Sprintf("sw-%d", r.Device),
				MAC: provision.MAC{0, 0, 0x5e, 0, byte(r.Device >> 8), byte(r.Device)}, IP: netip.AddrFrom4([4]byte{198, 18, byte(r.Device >> 8), byte(r.Device)})})
		}
	}
	return in
}

// MessyInput makes rows that clash in every way: few addresses, subscribers,
// ports and MACs, chosen at random.
func MessyInput(rng *rand.Rand, n int) provision.Input {
	in := provision.Input{Source: provision.SourceComposed, Subnets: []netip.Prefix{netip.MustParsePrefix("100.64.0.0/26"), netip.MustParsePrefix("100.64.0.64/27")},
		Reserved: Addrs("100.64.0.1"), FetchedAt: time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)}
	for range n {
		r := provision.Line{Subscriber: provision.SubscriberID(rng.IntN(12)), Addresses: provision.Hosts4(IP(rng.IntN(110))), Device: provision.DeviceID(rng.IntN(4)), Port: uint32(rng.IntN(4))}
		if rng.IntN(20) == 0 {
			r.Addresses = nil
		}
		if rng.IntN(2) == 0 {
			r.MAC = provision.MAC{0, 0, 0x5e, 0, 0x53, byte(rng.IntN(30))}
		}
		if rng.IntN(2) == 0 {
			r.PortName = fmt.Sprintf("eth%d", rng.IntN(4))
		}
		if rng.IntN(4) == 0 {
			r.VLAN = uint16(rng.IntN(3))
		}
		in.Lines = append(in.Lines, r)
		if rng.IntN(10) == 0 {
			in.Lines = append(in.Lines, r)
		}
	}
	for range 10 {
		in.Subscribers = append(in.Subscribers, provision.Subscriber{ID: provision.SubscriberID(rng.IntN(11)), State: provision.State(rng.IntN(4))})
	}
	for range 6 {
		in.Devices = append(in.Devices, provision.Device{ID: provision.DeviceID(rng.IntN(4)), MAC: provision.MAC{0, 0, 0x5e, 0, 0x53, byte(rng.IntN(3))}, IP: IP(250 + rng.IntN(3))})
	}
	return in
}

// Shuffled returns in with everything in another order.
func Shuffled(rng *rand.Rand, in provision.Input) provision.Input {
	in.Lines, in.Subscribers, in.Devices = slices.Clone(in.Lines), slices.Clone(in.Subscribers), slices.Clone(in.Devices)
	rng.Shuffle(len(in.Lines), func(i, j int) { in.Lines[i], in.Lines[j] = in.Lines[j], in.Lines[i] })
	rng.Shuffle(len(in.Subscribers), func(i, j int) {
		in.Subscribers[i], in.Subscribers[j] = in.Subscribers[j], in.Subscribers[i]
	})
	rng.Shuffle(len(in.Devices), func(i, j int) { in.Devices[i], in.Devices[j] = in.Devices[j], in.Devices[i] })
	return in
}

// Rows returns every host address of lines as a line that has only it, by address, and
// after them the vacant lines as they are, without their Owners.
func Rows(lines provision.Lines) []provision.Line {
	var bound, vacant []provision.Line
	for l := range lines.All() {
		row := *l
		row.Owner, row.Addresses = provision.Owner{}, nil
		if l.Vacant() {
			vacant = append(vacant, row)
		}
		for ip := range l.Hosts4() {
			row.Addresses = provision.Hosts4(ip)
			bound = append(bound, row)
		}
	}
	slices.SortStableFunc(bound, func(a, b provision.Line) int {
		return a.Addresses[0].Prefix.Addr().Compare(b.Addresses[0].Prefix.Addr())
	})
	return append(bound, vacant...)
}

// Build is provision.Build of an input that must have no defect.
func Build(t testing.TB, in provision.Input) *provision.Snapshot {
	t.Helper()
	s, problems := provision.Build(in)
	require.Empty(t, problems)
	return s
}

// Rand returns random numbers that are the same at every run.
func Rand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, seed)) }

// Stopped returns the addresses of stopped subscribers.
func Stopped(s *provision.Snapshot) []netip.Addr {
	list, _ := s.Blocked()
	return list
}

// Paused returns the addresses of paused subscribers.
func Paused(s *provision.Snapshot) []netip.Addr {
	_, list := s.Blocked()
	return list
}
