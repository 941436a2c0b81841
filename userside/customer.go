package userside

import (
	"net/netip"
	"time"
)

// Customer is what customer get_data says about one customer (API page section
// 3.3). Fields that the server left out are zero; dates that mean "none" are
// the zero time, all others are in Options.Location.
type Customer struct {
	ID          int64
	Login       String
	FullName    String
	State       Int // 0 stop, 1 pause, 2 active; installations add their own
	Corporate   Bool
	Potential   Bool // not yet a customer
	Disabled    Bool
	InBilling   Bool // Set and false: vanished from the billing
	Balance     Float
	Credit      Float
	Discount    Float
	Account     String
	BillingID   String // id of the customer in the billing, despite its name
	BillingUUID String // newer servers
	Billing     Int    // which billing; newer servers
	ParentID    int64
	ManagerID   int64
	Comment     String
	Comment2    String

	Created         time.Time
	Connected       time.Time
	Active          time.Time // last seen on the network
	ActiveInternet  time.Time
	PositiveBalance time.Time

	TrafficUp, TrafficDown Int // this month

	Addresses  []CustomerAddress // addresses in the network (ip_mac)
	Houses     []House
	Agreements []Agreement
	Phones     []Contact
	Emails     []Contact
	Tariffs    []Tariff // current
	Services   []Service
	Groups     IDs
	Marks      IDs
	Tags       IDs
	Additional Map[String] // additional_data: value by field id
}

// CustomerAddress is one member of ip_mac: an address that the customer may use now.
type CustomerAddress struct {
	IP  netip.Addr // invalid: an entry with only a MAC, or of a subnet
	MAC MAC        // zero: not known
	Net String     // ip_net: a subnet, as text; ParseSubnet reads it
}

// House is one member of address.
type House struct {
	Type      String // connect
	HouseID   int64
	Apartment String
	Entrance  String
	Floor     String
}

// Agreement is one contract.
type Agreement struct {
	Number String
	Date   time.Time
}

// Contact is one phone number or mail address.
type Contact struct {
	Value String
	Main  bool
}

// Tariff is one member of tariff: its id is the billing's.
type Tariff struct {
	ID    String
	Until time.Time
}

// Service is one member of service: something that the customer has beside the tariff.
type Service struct {
	ID      int64
	Cost    Float
	Comment String
	Added   time.Time
}

// recordReader reads members of one object by their exact keys and turns what
// cannot be read into defects.
type recordReader struct {
	v       value
	at      *place
	defects *Defects
	loc     *time.Location
}

func field1[T any](r recordReader, read func(value) (T, error), keys ...string) T {
	for i, key := range keys {
		m := r.v.get(key)
		if m.empty() && i < len(keys)-1 {
			continue
		}
		out, err := read(m)
		if err != nil {
			r.defects.add(r.at.String()+"."+key, err.Error())
		}
		return out
	}
	var zero T
	return zero
}

func (r recordReader) int(keys ...string) Int       { return field1(r, value.int, keys...) }
func (r recordReader) id(keys ...string) int64      { return field1(r, value.int, keys...).Value }
func (r recordReader) float(keys ...string) Float   { return field1(r, value.float, keys...) }
func (r recordReader) bool(keys ...string) Bool     { return field1(r, value.bool, keys...) }
func (r recordReader) string(keys ...string) String { return field1(r, value.string, keys...) }
func (r recordReader) mac(keys ...string) MAC       { return field1(r, value.mac, keys...) }
func (r recordReader) time(keys ...string) time.Time {
	return field1(r, func(v value) (time.Time, error) { return v.time(r.loc) }, keys...)
}

// in returns a reader for a member that is an object.
func (r recordReader) in(v value, key string, index int) recordReader {
	at := &place{up: &place{up: r.at, key: []byte(key)}, index: index}
	return recordReader{v: v, at: at, defects: r.defects, loc: r.loc}
}

// each walks a member that should be a list or a keyed object of objects.
func (r recordReader) each(key string, fn func(recordReader)) {
	list := r.v.get(key)
	if !list.composite() {
		if !list.empty() {
			r.defects.add(r.at.String()+"."+key, list.kind().String()+" where a list is wanted")
		}
		return
	}
	i := 0
	for m := range list.all {
		if m.kind() == kindObject {
			fn(r.in(m, key, i))
		} else if !m.empty() {
			r.defects.add(r.in(m, key, i).at.String(), m.kind().String()+" where an object is wanted")
		}
		i++
	}
}

func (r recordReader) idsOf(key string) IDs {
	var out IDs
	list := r.v.get(key)
	for m := range list.all {
		if id, ok := parseInt(m.get("id").bytes()); ok && id > 0 {
			out = append(out, id)
		} else if id, ok := parseInt(m.key()); ok && id > 0 {
			out = append(out, id)
		}
	}
	return out
}

func (r recordReader) customer() Customer {
	c := Customer{
		ID: r.id("id"), Login: r.string("login"), FullName: r.string("full_name"), State: r.int("state_id"),
		Corporate: r.bool("flag_corporate"), Potential: r.bool("is_potential"),
		Disabled: r.bool("is_disable"), InBilling: r.bool("is_in_billing"),
		Balance: r.float("balance"), Credit: r.float("credit"), Discount: r.float("discount"),
		Account: r.string("account_number"), BillingID: r.string("billing_id"),
		ParentID: r.id("parent_id"), ManagerID: r.id("manager_id"),
		Comment: r.string("comment"), Comment2: r.string("comment2"),
		Created: r.time("date_create"), Connected: r.time("date_connect"), Active: r.time("date_activity"),
		ActiveInternet: r.time("date_activity_inet"), PositiveBalance: r.time("date_positive_balance"),
		Groups: r.idsOf("group"), Marks: r.idsOf("mark"), Tags: r.idsOf("tag"),
	}
	if month := r.v.get("traffic").get("month"); month.kind() == kindObject {
		m := r.in(month, "traffic", 0)
		c.TrafficUp, c.TrafficDown = m.int("up"), m.int("down")
	}
	if billing := r.v.get("billing"); billing.kind() == kindObject {
		b := r.in(billing, "billing", 0)
		c.Billing, c.BillingUUID = b.int("id"), b.string("uuid")
	}
	r.each("agreement", func(m recordReader) {
		c.Agreements = append(c.Agreements, Agreement{Number: m.string("number"), Date: m.time("date")})
	})
	r.each("phone", func(m recordReader) {
		c.Phones = append(c.Phones, Contact{Value: m.string("number"), Main: m.bool("flag_main").Value})
	})
	r.each("email", func(m recordReader) {
		c.Emails = append(c.Emails, Contact{Value: m.string("address"), Main: m.bool("flag_main").Value})
	})
	r.each("address", func(m recordReader) { c.Houses = append(c.Houses, m.house()) })
	c.Addresses = r.addresses()
	if tariff := r.v.get("tariff"); tariff.kind() == kindObject {
		t := r
		t.v = tariff
		t.each("current", func(m recordReader) {
			c.Tariffs = append(c.Tariffs, Tariff{ID: m.string("id"), Until: m.time("date_finish")})
		})
	}
	for list := range r.v.get("service").all {
		id, _ := parseInt(list.key())
		i := 0
		for m := range list.all {
			s := r.in(m, "service", i)
			i++
			if m.kind() == kindObject {
				c.Services = append(c.Services, Service{ID: id, Cost: s.float("cost"), Comment: s.string("comment"), Added: s.time("date_add")})
			}
		}
	}
	c.Additional = mapOf(r.v.first("additional_data", "additional_customer_data"), func(v value) String {
		s, _ := v.get("value").string()
		return s
	})
	return c
}

func (r recordReader) house() House {
	h := House{Type: r.string("type"), HouseID: r.id("house_id"), Entrance: r.string("entrance"), Floor: r.string("floor")}
	if a := r.v.get("apartment"); a.kind() == kindObject {
		h.Apartment, _ = a.get("number").string()
	} else {
		h.Apartment = r.string("apartment")
	}
	return h
}

// addresses reads ip_mac: an object keyed by address or counter, a list, or
// nothing. The key stands in for an address that the member does not tell.
func (r recordReader) addresses() []CustomerAddress {
	var out []CustomerAddress
	list := r.v.get("ip_mac")
	keyed := list.kind() == kindObject
	r.each("ip_mac", func(m recordReader) {
		a := CustomerAddress{MAC: m.mac("mac"), Net: m.string("ip_net")}
		ip := m.v.get("ip")
		var err error
		switch {
		case ip.kind() != kindAbsent:
			a.IP, err = ip.ip()
		case keyed && a.Net == "" && isInet(m.v.key()):
			a.IP, err = parseIP(m.v.key())
		}
		if err != nil {
			r.defects.add(m.at.String()+".ip", err.Error())
			return
		}
		if a.Net != "" { // ip is the first of its addresses, and no client's
			a.Net, a.IP = wholeSubnet(a.Net, a.IP), netip.Addr{}
		}
		if a != (CustomerAddress{}) {
			out = append(out, a)
		}
	})
	return out
}
