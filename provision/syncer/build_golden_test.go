package syncer

import (
	"bytes"
	"crypto/sha256"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/bench/long"
	"github.com/usher-agent/usher/provision"
)

var rewrite = flag.Bool("rewrite", false, "write testdata/build.txt anew")

// rawRow is one row as an ERP tells it.
type rawRow struct {
	subscriber provision.SubscriberID
	ip         netip.Addr
	mac        provision.MAC
	device     provision.DeviceID
	port       uint32
	name       string
	vlan       uint16
}

// rawInput makes rows that clash in every way: with and without addresses, on few
// ports, in few VLANs and of few customers. Size and density differ by the seed.
func rawInput(rng *rand.Rand) (rows []rawRow, in provision.Input) {
	subs, ips, devices, ports, names, vlans := 1+rng.IntN(14), 1+rng.IntN(110), 1+rng.IntN(5), 1+rng.IntN(5), 1+rng.IntN(5), 1+rng.IntN(6)
	macs, bare, noPort := 1+rng.IntN(30), rng.IntN(11), rng.IntN(4)
	if rng.IntN(2) == 0 {
		subs = 20 + rng.IntN(60)
	}
	ip := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{100, 64, 0, byte(i)}) }
	for range rng.IntN(120) {
		r := rawRow{subscriber: provision.SubscriberID(rng.IntN(subs+1) - rng.IntN(30)/29), ip: ip(rng.IntN(ips))}
		switch {
		case rng.IntN(10) < bare:
			r.ip = netip.Addr{}
		case rng.IntN(40) == 0:
			r.ip = netip.AddrFrom16(r.ip.As16())
		case rng.IntN(80) == 0:
			r.ip = []netip.Addr{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("10.0.0.9")}[rng.IntN(3)]
		}
		if rng.IntN(4) >= noPort {
			r.device = provision.DeviceID(rng.IntN(devices+1) - rng.IntN(30)/29)
			if rng.IntN(4) > 0 {
				r.port = uint32(rng.IntN(ports + 1))
			}
			if rng.IntN(3) == 0 {
				r.name = fmt.Sprintf("eth%d", rng.IntN(names))
			}
		}
		if rng.IntN(2) == 0 {
			r.mac = provision.MAC{0, 0, 0x5e, 0, 0x53, byte(rng.IntN(macs))}
		}
		switch rng.IntN(8) {
		case 0, 1:
			r.vlan = uint16(rng.IntN(vlans + 1))
		case 2:
			r.vlan = 4093 + uint16(rng.IntN(4))
		}
		rows = append(rows, r)
		switch rng.IntN(10) {
		case 0:
			rows = append(rows, r)
		case 1, 2: // one more address on the very line
			r.ip = ip(rng.IntN(ips))
			rows = append(rows, r)
		case 3: // a half of it
			r.device, r.port, r.name, r.vlan = 0, 0, "", 0
			rows = append(rows, r)
		}
	}
	in = provision.Input{Source: provision.SourceComposed, FetchedAt: time.Date(2026, 11, 1, 12, 0, 0, rng.IntN(1e9), time.UTC)}
	if rng.IntN(4) > 0 {
		in.Subnets = []netip.Prefix{netip.MustParsePrefix("100.64.0.0/26"), netip.MustParsePrefix("100.64.0.64/27")}
		in.Reserved = []netip.Addr{ip(1)}
	}
	for range rng.IntN(2 * subs) {
		in.Subscribers = append(in.Subscribers, provision.Subscriber{ID: provision.SubscriberID(rng.IntN(subs + 2)), State: provision.State(rng.IntN(5))})
	}
	for range rng.IntN(8) {
		d := provision.Device{ID: provision.DeviceID(rng.IntN(devices + 1)), IP: ip(250 + rng.IntN(3)), MAC: provision.MAC{0, 0, 0x5e, 0, 0x53, byte(rng.IntN(3))}}
		if rng.IntN(2) == 0 {
			d.Name = fmt.Sprintf("sw%d", rng.IntN(3))
		}
		in.Devices = append(in.Devices, d)
	}
	return rows, in
}

// TestBuildGolden compares what Build makes of some hundred messy inputs, with and
// without pools for subscribers, by everything that can be asked: problems, counts, rows,
// every look-up, stored form, fingerprint, and the same after a change of states and
// after it was stored and read. Each is kept as a digest; where one differs, print the text of its
// seed here and in a tree before the change.
func TestBuildGolden(t *testing.T) {
	const golden = "testdata/build.txt"
	seeds := long.Times(t, 100, 400)
	if *rewrite {
		seeds = 400
	}
	var got strings.Builder
	for seed := range uint64(seeds) {
		for _, keep := range []bool{false, true} {
			sum := sha256.Sum256([]byte(goldenText(t, seed, keep)))
			fmt.Fprintf(&got, "%d %t %x\n", seed, keep, sum[:6])
		}
	}
	if *rewrite {
		require.NoError(t, os.WriteFile(golden, []byte(got.String()), 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	wantLines, gotLines := strings.Split(string(want), "\n"), strings.Split(strings.TrimSuffix(got.String(), "\n"), "\n")
	require.Len(t, wantLines, 2*400+1)
	require.Len(t, gotLines, 2*seeds)
	for i := range gotLines {
		require.Equal(t, wantLines[i], gotLines[i], "seed, with pools for subscribers, digest")
	}
}

func goldenText(t *testing.T, seed uint64, keep bool) string {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 77))
	rows, in := rawInput(rng)
	in.KeepVacant = keep
	for _, r := range rows {
		in.Lines = append(in.Lines, provision.Line{Subscriber: r.subscriber, MAC: r.mac, Device: r.device, Port: r.port, PortName: r.name, VLAN: r.vlan,
			Addresses: provision.Hosts4(r.ip)})
	}
	snap, problems := provision.Build(in)
	var b strings.Builder
	for _, p := range problems {
		require.False(t, p.Prefix.IsValid(), "there are no customers' subnets")
		fmt.Fprintf(&b, "problem %s\n", strings.Replace(fmt.Sprintf("%+v", p), " Prefix:invalid Prefix", "", 1))
	}
	describe(t, &b, snap)
	states := map[provision.SubscriberID]provision.State{}
	for range 3 {
		states[provision.SubscriberID(1+rng.IntN(30))] = provision.State(1 + rng.IntN(3))
	}
	describe(t, &b, snap.WithStates(states))
	read, err := decode(bytes.NewReader(stored(t, snap)))
	require.NoError(t, err)
	describe(t, &b, read)
	return b.String()
}

// describe writes down all that a snapshot answers.
func describe(t *testing.T, b *strings.Builder, s *provision.Snapshot) {
	t.Helper()
	stopped, paused := s.Blocked()
	fmt.Fprintf(b, "fingerprint %016x\ncounts %+v\nlen %d empty %t keeps %t vacant only %d\nstopped %v paused %v\n%s",
		s.Fingerprint(), s.Counts(), s.Len(), s.Empty(), s.KeepsVacant(), s.WithoutAddress(), stopped, paused, stored(t, s))
	fmt.Fprintf(b, "all %v\nvacant %v\ncontested %v\n", byPort(s), vacantTexts(s.LinesBySubscriber()), contested(s))
	fmt.Fprintf(b, "bound %v\n", slices.Collect(s.BoundIn(netip.MustParseAddr("100.64.0.7"), netip.MustParseAddr("100.64.0.90"))))
	for i := range 120 {
		ip := netip.AddrFrom4([4]byte{100, 64, 0, byte(i)})
		row := "none"
		if l := s.ByIP(ip); l != nil {
			row = rowText(l, ip)
		}
		fmt.Fprintf(b, "ip %s %v\n", ip, row)
	}
	for i := range 32 {
		m := provision.MAC{0, 0, 0x5e, 0, 0x53, byte(i)}
		if i == 31 {
			m = provision.MAC{}
		}
		rows, vacant := texts(s.ByMAC(m))
		fmt.Fprintf(b, "mac %s %v %v\n", m, rows, vacant)
	}
	for d := range provision.DeviceID(7) {
		for p := range uint32(7) {
			rows, vacant := texts(s.ByPort(d, p))
			fmt.Fprintf(b, "port %d %d %v %v\n", d, p, rows, vacant)
		}
		for n := range 7 {
			rows, vacant := texts(s.ByPortName(d, fmt.Appendf(nil, "eth%d", n)))
			fmt.Fprintf(b, "name %d %d %v %v\n", d, n, rows, vacant)
		}
		rows, vacant := texts(s.ByPortName(d, nil))
		fmt.Fprintf(b, "name %d none %v %v\n", d, rows, vacant)
	}
	for _, v := range []uint16{0, 1, 2, 3, 4, 5, 6, 4093, 4094, 4095, 4096} {
		lines, shared := s.ByVLAN(v)
		rows, vacant := texts(lines)
		fmt.Fprintf(b, "vlan %d %v %v %t\n", v, rows, vacant, shared)
	}
	for id := range provision.SubscriberID(84) {
		rows, vacant := texts(s.BySubscriber(id))
		for l := range s.BySubscriber(id).All() {
			if l.Vacant() {
				vacant = append(vacant, vacantText(s.ByOwner(id, l.Owner)))
			}
		}
		sub, listed := s.Subscriber(id)
		fmt.Fprintf(b, "subscriber %d %v %v %v %t\n", id, rows, vacant, sub, listed)
	}
	for i := range 3 {
		fmt.Fprintf(b, "device %v %v %v\n", s.DeviceByMAC(provision.MAC{0, 0, 0x5e, 0, 0x53, byte(i)}),
			s.DeviceByIP(netip.AddrFrom4([4]byte{100, 64, 0, byte(250 + i)})), s.DeviceByName(fmt.Appendf(nil, "sw%d", i)))
	}
}

func rowText(l *provision.Line, ip netip.Addr) string {
	return fmt.Sprintf("{%d %s %s %d/%d/%s v%d}", l.Subscriber, ip, l.MAC, l.Device, l.Port, l.PortName, l.VLAN)
}

func vacantText(l *provision.Line) string {
	return fmt.Sprintf("{%d %s %d/%d/%s v%d %s}", l.Subscriber, l.MAC, l.Device, l.Port, l.PortName, l.VLAN, l.Owner)
}

// texts returns the host addresses of lines in their order, and the vacant ones as they come.
func texts(lines provision.Lines) (rows, vacant []string) {
	hosts := map[netip.Addr]string{}
	for l := range lines.All() {
		for ip := range l.Hosts4() {
			hosts[ip] = rowText(l, ip)
		}
	}
	for _, ip := range slices.SortedFunc(maps.Keys(hosts), netip.Addr.Compare) {
		rows = append(rows, hosts[ip])
	}
	return rows, vacantTexts(lines)
}

func vacantTexts(lines provision.Lines) (list []string) {
	for l := range lines.All() {
		if l.Vacant() {
			list = append(list, vacantText(l))
		}
	}
	return list
}

// byPort returns all host addresses by port, and of one port ascending.
func byPort(s *provision.Snapshot) (list []string) {
	all := s.Lines()
	for i := 0; i < all.Len(); {
		hosts := map[netip.Addr]string{}
		for first := all.At(i); i < all.Len(); i++ {
			l := all.At(i)
			if l.Device != first.Device || l.Port != first.Port || l.Port == 0 && l.PortName != first.PortName {
				break
			}
			for ip := range l.Hosts4() {
				hosts[ip] = rowText(l, ip)
			}
		}
		for _, ip := range slices.SortedFunc(maps.Keys(hosts), netip.Addr.Compare) {
			list = append(list, hosts[ip])
		}
	}
	return list
}

func contested(s *provision.Snapshot) (list []string) {
	for i := range s.Contested() {
		l := &s.Contested()[i]
		list = append(list, rowText(l, l.Addresses[0].Prefix.Addr()))
	}
	return list
}

func stored(t *testing.T, s *provision.Snapshot) []byte {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, encode(&b, s))
	return b.Bytes()
}
