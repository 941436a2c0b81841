package emulator

import (
	"encoding/binary"
	"net/netip"
	"time"
)

// storedCustomer is Customer in the file. Names are short and addresses are
// numbers, for the start with 100,000 of them is waited for.
type storedCustomer struct {
	ID         int64           `json:"id"`
	Login      string          `json:"lg,omitempty"`
	FullName   string          `json:"nm,omitempty"`
	Account    string          `json:"ac,omitempty"`
	Agreement  string          `json:"ag,omitempty"`
	AgreeDate  int64           `json:"ad,omitempty"` // Unix seconds, like all times here
	State      int             `json:"st"`
	Balance    int64           `json:"ba,omitempty"`
	Flags      uint8           `json:"fl,omitempty"` // see customerFlags
	Billing    int64           `json:"bi,omitempty"`
	BillingUID string          `json:"bu,omitempty"`
	Group      int64           `json:"gr,omitempty"`
	Tariff     string          `json:"ta,omitempty"`
	Manager    int64           `json:"ma,omitempty"`
	Phones     []string        `json:"ph,omitempty"`
	Emails     []string        `json:"em,omitempty"`
	Marks      []int64         `json:"mk,omitempty"`
	House      int64           `json:"ho,omitempty"`
	Apartment  string          `json:"ap,omitempty"`
	Entrance   int             `json:"en,omitempty"`
	Floor      int             `json:"fo,omitempty"`
	Created    int64           `json:"cr,omitempty"`
	Connected  int64           `json:"co,omitempty"`
	Active     int64           `json:"av,omitempty"`
	Comment    string          `json:"cm,omitempty"`
	Addresses  []storedAddress `json:"ip,omitempty"`
	Links      []storedLink    `json:"ln,omitempty"`
	Parent     int64           `json:"pa,omitempty"`
	Coords     string          `json:"cd,omitempty"`
	ActiveNet  int64           `json:"an,omitempty"`
	ActiveCab  int64           `json:"cb,omitempty"`
	Password   string          `json:"pw,omitempty"` // a hash
	Services   []storedService `json:"sv,omitempty"`
	Movements  []storedMove    `json:"mv,omitempty"`
	Messages   []storedMessage `json:"ms,omitempty"`
}

type storedService struct {
	ID      int64  `json:"i"`
	Price   int64  `json:"p,omitempty"`
	Comment string `json:"c,omitempty"`
	Added   int64  `json:"t,omitempty"`
}

type storedMove struct {
	ID       int64  `json:"i"`
	At       int64  `json:"t"`
	Kind     string `json:"k,omitempty"`
	Employee int64  `json:"e,omitempty"`
	Before   int64  `json:"b,omitempty"`
	Amount   int64  `json:"a"`
	Comment  string `json:"c,omitempty"`
}

type storedMessage struct {
	ID       int64  `json:"i"`
	At       int64  `json:"t"`
	To       bool   `json:"o,omitempty"`
	Employee int64  `json:"e,omitempty"`
	Archived bool   `json:"r,omitempty"`
	Text     string `json:"x"`
}

type storedAddress struct {
	IP  uint32 `json:"i,omitempty"`
	MAC uint64 `json:"m,omitempty"`
	Net string `json:"n,omitempty"`
}

type storedLink struct {
	Device int64  `json:"d"`
	Port   uint32 `json:"p"`
	Cross  int64  `json:"c,omitempty"`
}

type storedRecord struct {
	At  int64  `json:"t"`
	IP  uint32 `json:"i,omitempty"`
	MAC uint64 `json:"m"`
}

// customerFlags are the bits of storedCustomer.Flags, by position.
func customerFlags(c *Customer) []*bool {
	return []*bool{&c.Corporate, &c.Potential, &c.Disabled, &c.Former, &c.NotInBilling}
}

func storeCustomer(c *Customer) *storedCustomer {
	s := &storedCustomer{
		ID: c.ID, Login: c.Login, FullName: c.FullName, Account: c.AccountNumber,
		Agreement: c.AgreementNumber, AgreeDate: unix(c.AgreementDate), State: int(c.State), Balance: c.BalanceCents,
		Billing: c.Billing, BillingUID: c.BillingUID, Group: c.Group, Tariff: c.Tariff, Manager: c.Manager,
		Phones: c.Phones, Emails: c.Emails, Marks: c.Marks, House: c.House, Apartment: c.Apartment,
		Entrance: c.Entrance, Floor: c.Floor, Created: unix(c.Created), Connected: unix(c.Connected),
		Active: unix(c.Active), Comment: c.Comment, Parent: c.Parent, Coords: c.Coordinates,
		ActiveNet: unix(c.ActiveInternet), ActiveCab: unix(c.ActiveCabinet), Password: c.PasswordHash,
	}
	for _, v := range c.Services {
		s.Services = append(s.Services, storedService{v.ID, v.PriceCents, v.Comment, unix(v.Added)})
	}
	for _, m := range c.Movements {
		s.Movements = append(s.Movements, storedMove{m.ID, unix(m.At), m.Kind, m.Employee, m.BeforeCents, m.AmountCents, m.Comment})
	}
	for _, m := range c.Messages {
		s.Messages = append(s.Messages, storedMessage{m.ID, unix(m.At), m.ToCustomer, m.Employee, m.Archived, m.Text})
	}
	for i, f := range customerFlags(c) {
		if *f {
			s.Flags |= 1 << i
		}
	}
	for _, a := range c.Addresses {
		sa := storedAddress{IP: ipNumber(a.IP), MAC: macNumber(a.MAC)}
		if a.Net.IsValid() {
			sa.Net = a.Net.String()
		}
		s.Addresses = append(s.Addresses, sa)
	}
	for _, l := range c.Links {
		s.Links = append(s.Links, storedLink(l))
	}
	return s
}

func (s *storedCustomer) customer() *Customer {
	c := &Customer{
		ID: s.ID, Login: s.Login, FullName: s.FullName, AccountNumber: s.Account,
		AgreementNumber: s.Agreement, AgreementDate: fromUnix(s.AgreeDate), State: State(s.State), BalanceCents: s.Balance,
		Billing: s.Billing, BillingUID: s.BillingUID, Group: s.Group, Tariff: s.Tariff, Manager: s.Manager,
		Phones: s.Phones, Emails: s.Emails, Marks: s.Marks, House: s.House, Apartment: s.Apartment,
		Entrance: s.Entrance, Floor: s.Floor, Created: fromUnix(s.Created), Connected: fromUnix(s.Connected),
		Active: fromUnix(s.Active), Comment: s.Comment, Parent: s.Parent, Coordinates: s.Coords,
		ActiveInternet: fromUnix(s.ActiveNet), ActiveCabinet: fromUnix(s.ActiveCab), PasswordHash: s.Password,
	}
	for _, v := range s.Services {
		c.Services = append(c.Services, Service{v.ID, v.Price, v.Comment, fromUnix(v.Added)})
	}
	for _, m := range s.Movements {
		c.Movements = append(c.Movements, Movement{m.ID, fromUnix(m.At), m.Kind, m.Employee, m.Before, m.Amount, m.Comment})
	}
	for _, m := range s.Messages {
		c.Messages = append(c.Messages, Message{m.ID, fromUnix(m.At), m.To, m.Employee, m.Archived, m.Text})
	}
	for i, f := range customerFlags(c) {
		*f = s.Flags&(1<<i) != 0
	}
	for _, a := range s.Addresses {
		ca := Address{IP: ipFrom(a.IP), MAC: macFrom(a.MAC)}
		if p, err := netip.ParsePrefix(a.Net); err == nil {
			ca.Net = p
		}
		c.Addresses = append(c.Addresses, ca)
	}
	for _, l := range s.Links {
		c.Links = append(c.Links, Link(l))
	}
	return c
}

// storedDevice is Device in the file.
type storedDevice struct {
	ID        int64        `json:"id"`
	Type      string       `json:"ty"`
	Name      string       `json:"nm,omitempty"`
	Model     string       `json:"mo,omitempty"`
	MAC       uint64       `json:"ma,omitempty"`
	IP        uint32       `json:"ip,omitempty"`
	VLAN      uint16       `json:"vl,omitempty"`
	Ports     []storedPort `json:"po,omitempty"`
	Uplinks   []uint32     `json:"up,omitempty"`
	Offline   bool         `json:"of,omitempty"`
	Node      int64        `json:"no,omitempty"`
	Entrance  int          `json:"en,omitempty"`
	Location  string       `json:"lo,omitempty"`
	Community string       `json:"cm,omitempty"`
	Login     string       `json:"lg,omitempty"`
	Password  string       `json:"pw,omitempty"`
}

type storedPort struct {
	Number uint32 `json:"n"`
	Index  uint32 `json:"i"`
	Name   string `json:"s"`
}

func storeDevice(d *Device) *storedDevice {
	s := &storedDevice{
		ID: d.ID, Type: d.Type, Name: d.Name, Model: d.Model, MAC: macNumber(d.MAC), IP: ipNumber(d.IP),
		VLAN: d.VLAN, Uplinks: d.Uplinks, Offline: d.Offline, Node: d.Node, Entrance: d.Entrance,
		Location: d.Location, Community: d.Community, Login: d.Login, Password: d.Password,
	}
	for _, p := range d.Ports {
		s.Ports = append(s.Ports, storedPort(p))
	}
	return s
}

func (s *storedDevice) device() *Device {
	d := &Device{
		ID: s.ID, Type: s.Type, Name: s.Name, Model: s.Model, MAC: macFrom(s.MAC), IP: ipFrom(s.IP),
		VLAN: s.VLAN, Uplinks: s.Uplinks, Offline: s.Offline, Node: s.Node, Entrance: s.Entrance,
		Location: s.Location, Community: s.Community, Login: s.Login, Password: s.Password,
	}
	for _, p := range s.Ports {
		d.Ports = append(d.Ports, Port(p))
	}
	return d
}

func storeRecord(r MACRecord) storedRecord {
	return storedRecord{At: unix(r.At), IP: ipNumber(r.IP), MAC: macNumber(r.MAC)}
}

func (s storedRecord) record() MACRecord {
	return MACRecord{At: fromUnix(s.At), IP: ipFrom(s.IP), MAC: macFrom(s.MAC)}
}

func unix(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

func fromUnix(s int64) time.Time {
	if s == 0 {
		return time.Time{}
	}
	return time.Unix(s, 0).UTC()
}

// ipNumber is inet_aton; 0 stands for no address, here and on the wire.
func ipNumber(ip netip.Addr) uint32 {
	if !ip.Is4() {
		return 0
	}
	b := ip.As4()
	return binary.BigEndian.Uint32(b[:])
}

func ipFrom(n uint32) netip.Addr {
	if n == 0 {
		return netip.Addr{}
	}
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, n)))
}

func macNumber(m MAC) uint64 {
	var b [8]byte
	copy(b[2:], m[:])
	return binary.BigEndian.Uint64(b[:])
}

func macFrom(n uint64) MAC {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], n)
	return MAC(b[2:])
}
