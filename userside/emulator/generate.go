package emulator

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"
)

// maxCustomers bounds what the generator makes: its subnets fit into 100.64.0.0/10.
const maxCustomers = 1_000_000

// firstSubnet is where the generated customers live: the shared address space
// of carriers (RFC 6598).
var firstSubnet = netip.MustParseAddr("100.64.0.0")

// generatedAt is "now" for generated dates, so that a seed gives the same data
// at any time.
var generatedAt = time.Date(2025, 3, 1, 8, 0, 0, 0, time.UTC)

// Parts of the access network.
const (
	customerPorts = 24 // per switch; ports above are uplinks
	firstCustomer = 1001
	firstDevice   = 6001
	firstVLAN     = 1001
)

// model of a switch: how it names and indexes its ports.
type switchModel struct {
	name  string
	oui   [3]byte
	ports uint32
	port  string // format of ifName
	index uint32 // ifIndex of port 0
}

// switchModels differ in what a careless reader confuses: port number, ifIndex
// and the number within ifName.
func switchModels() []switchModel {
	return []switchModel{
		{"D-Link DES-3200-28", [3]byte{0x00, 0x1e, 0x58}, 28, "1/%d", 0},
		{"Edge-Core ES3528M", [3]byte{0x70, 0x72, 0xcf}, 28, "Eth1/%d", 0},
		{"Cisco WS-C2960-24TT-L", [3]byte{0x00, 0x1d, 0x45}, 26, "Fa0/%d", 10000},
	}
}

// generator makes a data set from a seed. Everything is drawn from rng in a
// fixed order.
type generator struct {
	rng    *rand.Rand
	d      *dataset
	bits   int          // size of the subnets
	subnet netip.Prefix // the one being filled
	next   netip.Addr   // its next free address
	id     int64        // next customer
	port   uint32       // next port of the newest switch
}

// generate makes n customers and the network they hang on. With n = 0 the data
// set is empty.
func generate(seed uint64, n int) *dataset {
	g := &generator{rng: rand.New(rand.NewPCG(seed, 0x7573686572)), d: &dataset{}, id: firstCustomer}
	if n == 0 {
		return g.d
	}
	g.bits = subnetBits(n)
	g.d.customers = make([]*Customer, 0, n)
	for range n {
		if len(g.d.devices) == 0 || g.port > customerPorts {
			g.addSwitch()
		}
		g.d.customers = append(g.d.customers, g.customer())
	}
	g.oddities()
	g.extras(seed)
	return g.d
}

// subnetBits returns the size of subnet with which n customers need no more than
// about 64 of them: that many VLANs and configuration entries stay readable.
func subnetBits(n int) int {
	bits := 24
	for ; bits > 16; bits-- {
		if n/(1<<(32-bits)) < 64 {
			break
		}
	}
	return bits
}

// addSubnet begins the next subnet, with a VLAN of its own.
func (g *generator) addSubnet() {
	start := firstSubnet
	if g.subnet.IsValid() {
		start = ipFrom(lastAddress(g.subnet) + 1)
	}
	g.subnet = netip.PrefixFrom(start, g.bits)
	g.next = start.Next().Next() // the first one is the gateway's
	id := uint16(firstVLAN + len(g.d.vlans))
	g.d.vlans = append(g.d.vlans, VLAN{ID: id, Name: fmt.Sprintf("customers-%d", id), Subnet: g.subnet})
}

// addSwitch adds a switch. Its customers go on in the present subnet, or in a
// new one when that is nearly full.
func (g *generator) addSwitch() {
	if !g.subnet.IsValid() || ipNumber(g.next)+2*customerPorts > lastAddress(g.subnet) {
		g.addSubnet()
	}
	models := switchModels()
	i := len(g.d.devices)
	m := models[g.rng.IntN(len(models))]
	d := &Device{
		ID:   g.newDeviceID(),
		Type: "switch", Name: fmt.Sprintf("sw%d", i+1), Model: m.name,
		MAC: MAC{m.oui[0], m.oui[1], m.oui[2], byte(i >> 12), byte(i >> 4), byte(i << 4)},
		// 10.0.0.10, and no host part 0 or 255 in any /24.
		IP:   ipFrom(10<<24 | uint32(i/200)<<8 | uint32(10+i%200)),
		VLAN: g.d.vlans[len(g.d.vlans)-1].ID, Node: int64(i/4 + 1), Entrance: i%4 + 1,
		Location:  fmt.Sprintf("Будинок %d, під'їзд %d", i/4+1, i%4+1),
		Offline:   g.rng.IntN(100) == 0,
		Community: "public-" + g.word(6), Login: "admin", Password: g.word(10),
	}
	for p := uint32(1); p <= m.ports; p++ {
		d.Ports = append(d.Ports, Port{Number: p, Index: m.index + p, Name: fmt.Sprintf(m.port, p)})
		if p > customerPorts {
			d.Uplinks = append(d.Uplinks, p)
		}
	}
	g.d.devices = append(g.d.devices, d)
	g.port = 1
}

func lastAddress(p netip.Prefix) uint32 {
	return ipNumber(p.Addr()) + 1<<(32-p.Bits()) - 1
}

// newDeviceID leaves a gap now and then, like a table that rows were deleted from.
func (g *generator) newDeviceID() int64 {
	if n := len(g.d.devices); n > 0 {
		return g.d.devices[n-1].ID + 1 + int64(g.rng.IntN(12)/11)
	}
	return firstDevice
}

func (g *generator) newCustomerID() int64 {
	id := g.id
	g.id += 1 + int64(g.rng.IntN(20)/19)
	return id
}

func (g *generator) word(n int) string {
	const letters = "abcdefghijkmnpqrstuvwxyz23456789"
	b := make([]byte, n)
	for i := range b {
		b[i] = letters[g.rng.IntN(len(letters))]
	}
	return string(b)
}

// address returns the next free address; the last one of a subnet is broadcast.
func (g *generator) address() netip.Addr {
	if ipNumber(g.next) >= lastAddress(g.subnet) {
		g.addSubnet()
	}
	ip := g.next
	g.next = ip.Next()
	return ip
}

// mac returns a customer's MAC: locally administered, hence nobody's.
func (g *generator) mac() MAC {
	v := g.rng.Uint64()
	return MAC{0x02, byte(v >> 32), byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)}
}

func (g *generator) customer() *Customer {
	id := g.newCustomerID()
	dev := g.d.devices[len(g.d.devices)-1]
	created := generatedAt.Add(-time.Duration(24+g.rng.IntN(3*365*24)) * time.Hour)
	c := &Customer{
		ID: id, Login: fmt.Sprintf("u%d", id), FullName: fmt.Sprintf("Абонент %d", id),
		AccountNumber: fmt.Sprintf("1%07d", id), AgreementNumber: fmt.Sprintf("A-%d", id), AgreementDate: created,
		State: g.state(), Billing: 1, BillingUID: fmt.Sprint(id - 500), Tariff: fmt.Sprint(10 + g.rng.IntN(5)),
		Phones: []string{fmt.Sprintf("38000%07d", id)}, House: dev.Node, Apartment: fmt.Sprint(1 + g.rng.IntN(120)),
		Entrance: dev.Entrance, Floor: 1 + g.rng.IntN(9), Created: created, Connected: created.AddDate(0, 0, 1),
		Active: generatedAt.Add(-time.Duration(g.rng.IntN(72*60)) * time.Minute),
	}
	c.BalanceCents = int64(g.rng.IntN(50000))
	if c.State != StateActive {
		c.BalanceCents = -int64(g.rng.IntN(20000))
	}
	if g.rng.IntN(3) == 0 {
		c.Group = int64(1 + g.rng.IntN(3))
	}
	if g.rng.IntN(30) == 0 {
		c.Corporate = true
	}
	if g.rng.IntN(5) == 0 {
		c.Emails = []string{c.Login + "@example.net"}
	}
	g.plug(c, dev)
	g.addresses(c)
	return c
}

func (g *generator) state() State {
	switch n := g.rng.IntN(100); {
	case n < 92:
		return StateActive
	case n < 97:
		return StatePause
	default:
		return StateStop
	}
}

// plug links the customer to the next port, skipping some that stay free. One
// in 25 has no port in the ERP; now and then two share one.
func (g *generator) plug(c *Customer, dev *Device) {
	if g.rng.IntN(25) == 0 {
		return
	}
	c.Links = []Link{{Device: dev.ID, Port: g.port}}
	switch g.rng.IntN(20) {
	case 0, 1:
		g.port += 2
	case 2:
		if g.rng.IntN(10) != 0 { // one in 200 shares the port with the next customer
			g.port++
		}
	default:
		g.port++
	}
}

// addresses returns one address mostly, two or three to 3 in 100; 15 in 100 have no MAC yet.
func (g *generator) addresses(c *Customer) {
	n := 1
	if g.rng.IntN(100) < 3 {
		n = 2 + g.rng.IntN(2)
	}
	unknown := g.rng.IntN(100) < 15
	for range n {
		a := Address{IP: g.address()}
		if !unknown {
			a.MAC = g.mac()
		}
		c.Addresses = append(c.Addresses, a)
	}
	if g.rng.IntN(200) == 0 {
		c.Addresses = append(c.Addresses, Address{MAC: g.mac()})
	}
}

// oddities puts the defects of real data bases on the last customers, so that
// the first ones stay plain. Small data sets get those that fit.
func (g *generator) oddities() {
	all := g.d.customers
	odd := func(back int) *Customer { return all[len(all)-back] }
	if len(all) >= 20 {
		odd(1).FullName = `Test "A" & <B>'s flat 7/1`
		odd(1).Comment = "first line\nsecond \\ line"
		odd(2).Former, odd(2).State = true, StateStop
		odd(3).Potential, odd(3).State = true, StateStop
		odd(4).Disabled = true
		odd(5).NotInBilling = true
	}
	if len(all) >= 100 {
		// Behind a patch panel: commutation names the cross, the switch is at its end.
		for back, cross := 12, int64(301); cross <= 302 && back < len(all); back++ {
			if c := odd(back); len(c.Links) > 0 {
				c.Links[0].Cross = cross
				cross++
			}
		}
		odd(8).Addresses = append(odd(8).Addresses, Address{MAC: g.mac()})
		odd(9).Addresses = nil
	}
	if len(all) > 1000 {
		// The same address at two customers.
		odd(10).Addresses[0].IP = odd(11).Addresses[0].IP
	}
}
