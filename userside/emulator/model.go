package emulator

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// State is a state_id: what a customer may do. An installation may have numbers
// of its own besides the three.
type State int

// The states of the ERP (API page, section 4).
const (
	StateStop   State = 0
	StatePause  State = 1
	StateActive State = 2
)

// String returns stop, pause, active, or the number of another state.
func (s State) String() string {
	switch s {
	case StateStop:
		return "stop"
	case StatePause:
		return "pause"
	case StateActive:
		return "active"
	default:
		return fmt.Sprintf("%d", int(s))
	}
}

// ParseState reads stop, pause, active or 0, 1, 2.
func ParseState(s string) (State, error) {
	for st := StateStop; st <= StateActive; st++ {
		if s == st.String() || s == fmt.Sprintf("%d", int(st)) {
			return st, nil
		}
	}
	return 0, fmt.Errorf("state %q: want stop (0), pause (1) or active (2)", s)
}

// MAC is an Ethernet address. Zero means "not known".
type MAC [6]byte

// ParseMAC reads the one form that the ERP documents for set_mac_by_ip and
// ip_add: 00:11:22:33:44:55, in any case.
func ParseMAC(s string) (MAC, error) {
	if len(s) != 17 {
		return MAC{}, fmt.Errorf("mac %q: want the form 00:11:22:33:44:55", s)
	}
	var m MAC
	for i := range m {
		if i > 0 && s[3*i-1] != ':' {
			return MAC{}, fmt.Errorf("mac %q: want the form 00:11:22:33:44:55", s)
		}
		if _, err := hex.Decode(m[i:i+1], []byte(s[3*i:3*i+2])); err != nil {
			return MAC{}, fmt.Errorf("mac %q: want the form 00:11:22:33:44:55", s)
		}
	}
	return m, nil
}

// IsZero reports whether the address is not known.
func (m MAC) IsZero() bool { return m == MAC{} }

// String returns the form 00:00:5e:00:53:01.
func (m MAC) String() string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

// hex returns 12 lower-case digits, or nothing for the zero address: the form of
// ip_mac.
func (m MAC) hex() string {
	if m.IsZero() {
		return ""
	}
	return hex.EncodeToString(m[:])
}

// upperHex returns the form of device rows: 12 digits in upper case.
func (m MAC) upperHex() string { return strings.ToUpper(m.hex()) }

// Address is one entry of a customer's list of addresses: an address with or
// without a MAC, a MAC alone, or a subnet.
type Address struct {
	IP  netip.Addr   // IPv4; invalid: the entry has only a MAC, or is a subnet
	MAC MAC          // zero: not known
	Net netip.Prefix // a subnet entry (ip_subnet_add); invalid for all others
}

// Link is where a customer is plugged in.
type Link struct {
	Device int64
	Port   uint32 // the ERP's port number, from 1; not the ifIndex
	// Cross is a cross-connect (patch panel, splice) between customer and switch,
	// 0 for none. Commutation then names the cross, and the switch only as the
	// "finish" of the chain.
	Cross int64
}

// Service is a service that a customer has beside the tariff. A customer may
// have the same one several times.
type Service struct {
	ID         int64
	PriceCents int64
	Comment    string
	Added      time.Time
}

// Movement is one line of the history of a customer's account (abon_hist).
type Movement struct {
	ID          int64
	At          time.Time
	Kind        string // pay or change
	Employee    int64  // 0: nobody, an import
	BeforeCents int64
	AmountCents int64
	Comment     string
}

// Message is a message from or to a customer.
type Message struct {
	ID         int64
	At         time.Time
	ToCustomer bool
	Employee   int64 // who wrote to the customer; 0: the customer wrote
	Archived   bool
	Text       string
}

// Customer is a customer as the ERP holds it. Texts are plain here; the wire
// has them HTML-escaped.
type Customer struct {
	ID              int64
	Login           string
	FullName        string
	AccountNumber   string
	AgreementNumber string
	AgreementDate   time.Time
	State           State
	BalanceCents    int64
	Corporate       bool
	Potential       bool   // not yet a customer
	Disabled        bool   // is_disable
	Former          bool   // is_ex
	NotInBilling    bool   // is_in_billing = 0
	Billing         int64  // which billing; 0 means 1
	BillingUID      string // the customer's id in the billing
	Group           int64  // 0: none
	Tariff          string // id in the billing; may be empty
	Manager         int64
	Parent          int64    // the customer that this one belongs to; 0: none
	Phones          []string // by position: phone0 is the mobile, phone1 the one at home...
	Emails          []string
	Marks           []int64
	House           int64
	Apartment       string
	Entrance        int
	Floor           int
	Coordinates     string // "lat,lon"
	Created         time.Time
	Connected       time.Time // zero: never, 1970-01-01 on the wire
	Active          time.Time // last seen on the network
	ActiveInternet  time.Time // last seen on the internet; zero: as Active
	ActiveCabinet   time.Time // last seen in the personal area
	Comment         string
	PasswordHash    string // of the personal area, see Emulator.SetPassword; empty: none
	Services        []Service
	Movements       []Movement // oldest first, at most 100
	Messages        []Message  // oldest first, at most 100
	Addresses       []Address
	Links           []Link
}

func (c *Customer) clone() *Customer {
	d := *c
	d.Phones = slices.Clone(c.Phones)
	d.Emails = slices.Clone(c.Emails)
	d.Marks = slices.Clone(c.Marks)
	d.Services = slices.Clone(c.Services)
	d.Movements = slices.Clone(c.Movements)
	d.Messages = slices.Clone(c.Messages)
	d.Addresses = slices.Clone(c.Addresses)
	d.Links = slices.Clone(c.Links)
	return &d
}

func (c *Customer) validate() error {
	if c.ID < 0 {
		return fmt.Errorf("customer %d: negative id", c.ID)
	}
	if c.State < 0 {
		return fmt.Errorf("customer %d: negative state", c.ID)
	}
	for _, a := range c.Addresses {
		switch {
		case a.Net.IsValid() && (!a.Net.Addr().Is4() || a.IP.IsValid()):
			return fmt.Errorf("customer %d: subnet %v: want an IPv4 prefix and no address beside it", c.ID, a.Net)
		case a.IP.IsValid() && !a.IP.Is4():
			return fmt.Errorf("customer %d: address %v: the ERP knows IPv4 only", c.ID, a.IP)
		case !a.IP.IsValid() && !a.Net.IsValid() && a.MAC.IsZero():
			return fmt.Errorf("customer %d: an address entry with neither address, MAC nor subnet", c.ID)
		}
	}
	for _, l := range c.Links {
		if l.Device <= 0 || l.Port == 0 {
			return fmt.Errorf("customer %d: link to device %d port %d: want both from 1", c.ID, l.Device, l.Port)
		}
	}
	return nil
}

// Port is one port of a Device.
type Port struct {
	Number uint32 // ifNumber: what commutation calls interface
	Index  uint32 // ifIndex of SNMP
	Name   string // ifName
}

// Device is a switch or OLT.
type Device struct {
	ID       int64
	Type     string // switch or olt; empty means switch
	Name     string
	Model    string
	MAC      MAC
	IP       netip.Addr // management address; invalid: none
	VLAN     uint16     // VLAN of its customers; 0: not told
	Ports    []Port
	Uplinks  []uint32
	Offline  bool
	Node     int64
	Entrance int
	Location string
	// Credentials, shown by device get_data unless is_hide_access_data=1.
	Community string
	Login     string
	Password  string
}

func (d *Device) clone() *Device {
	c := *d
	c.Ports = slices.Clone(d.Ports)
	c.Uplinks = slices.Clone(d.Uplinks)
	return &c
}

func (d *Device) validate() error {
	if d.ID < 0 {
		return fmt.Errorf("device %d: negative id", d.ID)
	}
	if d.Type != "switch" && d.Type != "olt" {
		return fmt.Errorf("device %d: type %q: want switch or olt", d.ID, d.Type)
	}
	if d.IP.IsValid() && !d.IP.Is4() {
		return fmt.Errorf("device %d: address %v: the ERP knows IPv4 only", d.ID, d.IP)
	}
	return nil
}

// portName returns the interface name of a port, empty when the device lacks it.
func (d *Device) portName(number uint32) string {
	if d == nil {
		return ""
	}
	// Ports are nearly always numbered 1, 2, 3...
	if i := int(number) - 1; i >= 0 && i < len(d.Ports) && d.Ports[i].Number == number {
		return d.Ports[i].Name
	}
	for _, p := range d.Ports {
		if p.Number == number {
			return p.Name
		}
	}
	return ""
}

// VLAN is a customer VLAN with the subnet that its customers live in.
type VLAN struct {
	ID     uint16
	Name   string
	Subnet netip.Prefix
}

// MACRecord is a line of a customer's MAC history: from At on, IP was used with MAC.
type MACRecord struct {
	At  time.Time
	IP  netip.Addr // invalid: an entry with only a MAC
	MAC MAC
}
