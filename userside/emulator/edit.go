package emulator

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// AddCustomer adds a customer and gives its id, which is the next free one when
// c.ID is 0. A zero State is StateStop, as in the ERP.
func (e *Emulator) AddCustomer(c Customer) (int64, error) { return e.addCustomer(c, false) }

func (e *Emulator) addCustomer(c Customer, quiet bool) (int64, error) {
	next := c.clone()
	err := e.change(quiet, func(now time.Time) ([]edit, error) {
		if err := next.validate(); err != nil {
			return nil, err
		}
		if next.ID == 0 {
			next.ID = max(1001, e.lastCustomer+1)
		}
		if e.customer(next.ID) != nil {
			return nil, fmt.Errorf("customer %d: exists already", next.ID)
		}
		if next.Created.IsZero() {
			next.Created = now
		}
		e.lastCustomer = max(e.lastCustomer, next.ID)
		for _, m := range next.Movements {
			e.lastMovement = max(e.lastMovement, m.ID)
		}
		for _, m := range next.Messages {
			e.lastMessage = max(e.lastMessage, m.ID)
		}
		return []edit{{customer: next, change: Change{Kind: ChangeNew}}}, nil
	})
	return next.ID, err
}

// AddDevice adds a device and gives its id, which is the next free one when d.ID is 0.
func (e *Emulator) AddDevice(d Device) (int64, error) {
	next := d.clone()
	next.Type = cmp.Or(next.Type, "switch")
	err := e.change(false, func(time.Time) ([]edit, error) {
		if err := next.validate(); err != nil {
			return nil, err
		}
		if next.ID == 0 {
			next.ID = 6001
			if n := len(e.devices); n > 0 {
				next.ID = max(next.ID, e.devices[n-1].ID+1)
			}
		}
		if e.device(next.ID) != nil {
			return nil, fmt.Errorf("device %d: exists already", next.ID)
		}
		return []edit{{device: next, change: Change{Kind: ChangeNewDevice, Device: next.ID}}}, nil
	})
	return next.ID, err
}

// AddVLAN adds a customer VLAN with its subnet.
func (e *Emulator) AddVLAN(v VLAN) error {
	return e.change(true, func(time.Time) ([]edit, error) {
		if v.Subnet.IsValid() && !v.Subnet.Addr().Is4() {
			return nil, fmt.Errorf("vlan %d: subnet %v: want IPv4", v.ID, v.Subnet)
		}
		v.Subnet = v.Subnet.Masked()
		return []edit{{vlan: &v}}, nil
	})
}

// SetState changes the state of a customer, like somebody in the ERP's web
// pages or an import from the billing.
func (e *Emulator) SetState(id int64, s State) error { return e.setState(id, s, false) }

func (e *Emulator) setState(id int64, s State, quiet bool) error {
	return e.changeCustomer(id, quiet, func(c *Customer, _ time.Time) (Change, []MACRecord, error) {
		if s < 0 {
			return Change{}, nil, fmt.Errorf("state %d: negative", s)
		}
		if c.State == s {
			return Change{}, nil, errNothing
		}
		c.State = s
		return Change{Kind: ChangeState}, nil, nil
	})
}

// SetFlags changes what else decides whether a customer may use the network.
func (e *Emulator) SetFlags(id int64, disabled, potential, former bool) error {
	return e.changeCustomer(id, false, func(c *Customer, _ time.Time) (Change, []MACRecord, error) {
		c.Disabled, c.Potential, c.Former = disabled, potential, former
		return Change{Kind: ChangeState}, nil, nil
	})
}

// SetIPMAC writes the MAC of an address, at every customer that has the
// address, like set_mac_by_ip. ErrNotFound when nobody has it.
func (e *Emulator) SetIPMAC(ip netip.Addr, mac MAC) error { return e.setIPMAC(ip, mac, false) }

func (e *Emulator) setIPMAC(ip netip.Addr, mac MAC, quiet bool) error {
	return e.change(quiet, func(now time.Time) ([]edit, error) {
		ids := e.byIP[ip]
		if len(ids) == 0 {
			return nil, fmt.Errorf("address %v: %w", ip, ErrNotFound)
		}
		var edits []edit
		for _, id := range ids {
			c := e.customer(id).clone()
			i := slices.IndexFunc(c.Addresses, func(a Address) bool { return a.IP == ip })
			if c.Addresses[i].MAC == mac {
				continue
			}
			c.Addresses[i].MAC = mac
			edits = append(edits, edit{customer: c,
				history: []MACRecord{{At: now, IP: ip, MAC: mac}},
				change:  Change{Kind: ChangeMAC, IP: ip, MAC: mac}})
		}
		return edits, nil
	})
}

// AddIP gives a customer an address, with a MAC or without. An address that
// some customer has is refused; a data set with such a defect is built with
// AddCustomer.
func (e *Emulator) AddIP(id int64, ip netip.Addr, mac MAC) error { return e.addIP(id, ip, mac, false) }

func (e *Emulator) addIP(id int64, ip netip.Addr, mac MAC, quiet bool) error {
	return e.changeCustomer(id, quiet, func(c *Customer, now time.Time) (Change, []MACRecord, error) {
		if !ip.Is4() {
			return Change{}, nil, badRequest("address %v: the ERP knows IPv4 only", ip)
		}
		if len(e.byIP[ip]) > 0 {
			return Change{}, nil, badRequest("address %v: in use", ip)
		}
		c.Addresses = append(c.Addresses, Address{IP: ip, MAC: mac})
		var seen []MACRecord
		if !mac.IsZero() {
			seen = []MACRecord{{At: now, IP: ip, MAC: mac}}
		}
		return Change{Kind: ChangeIPAdd, IP: ip, MAC: mac}, seen, nil
	})
}

// AddMAC notes a MAC of a customer without an address for it, as the data of real
// installations has.
func (e *Emulator) AddMAC(id int64, mac MAC) error {
	return e.changeCustomer(id, false, func(c *Customer, _ time.Time) (Change, []MACRecord, error) {
		if mac.IsZero() {
			return Change{}, nil, badRequest("no MAC")
		}
		c.Addresses = append(c.Addresses, Address{MAC: mac})
		return Change{Kind: ChangeEdit}, nil, nil
	})
}

// RemoveIP takes an address from a customer.
func (e *Emulator) RemoveIP(id int64, ip netip.Addr) error {
	return e.removeIPs(id, false, func(a Address) bool { return a.IP == ip })
}

// removeIPs takes the entries that match; ErrNotFound when none does.
func (e *Emulator) removeIPs(id int64, quiet bool, match func(Address) bool) error {
	return e.changeCustomer(id, quiet, func(c *Customer, _ time.Time) (Change, []MACRecord, error) {
		i := slices.IndexFunc(c.Addresses, match)
		if i < 0 {
			return Change{}, nil, fmt.Errorf("customer %d: address: %w", id, ErrNotFound)
		}
		ip := c.Addresses[i].IP
		c.Addresses = slices.DeleteFunc(c.Addresses, match)
		return Change{Kind: ChangeIPDelete, IP: ip}, nil, nil
	})
}

// Link plugs a customer into a port of a device, and nowhere else. Port 0 unplugs.
func (e *Emulator) Link(id, device int64, port uint32) error {
	return e.changeCustomer(id, false, func(c *Customer, _ time.Time) (Change, []MACRecord, error) {
		if port == 0 {
			c.Links = nil
			return Change{Kind: ChangeLink}, nil, nil
		}
		if e.device(device) == nil {
			return Change{}, nil, fmt.Errorf("device %d: %w", device, ErrNotFound)
		}
		c.Links = []Link{{Device: device, Port: port}}
		return Change{Kind: ChangeLink, Device: device, Port: port}, nil, nil
	})
}

// addSubnet gives a customer a subnet. One that overlaps with a subnet or an
// address of any customer is refused.
func (e *Emulator) addSubnet(id int64, p netip.Prefix, quiet bool) error {
	return e.changeCustomer(id, quiet, func(c *Customer, _ time.Time) (Change, []MACRecord, error) {
		for _, other := range e.customerList() {
			for _, a := range other.Addresses {
				if a.Net.IsValid() && a.Net.Overlaps(p) || a.IP.IsValid() && p.Contains(a.IP) {
					return Change{}, nil, badRequest("subnet %v: in use", p)
				}
			}
		}
		c.Addresses = append(c.Addresses, Address{Net: p})
		return Change{Kind: ChangeSubnetAdd, IP: p.Addr()}, nil, nil
	})
}

// removeSubnet takes the subnets that begin with ip.
func (e *Emulator) removeSubnet(id int64, ip netip.Addr, quiet bool) error {
	return e.changeCustomer(id, quiet, func(c *Customer, _ time.Time) (Change, []MACRecord, error) {
		before := len(c.Addresses)
		c.Addresses = slices.DeleteFunc(c.Addresses, func(a Address) bool { return a.Net.IsValid() && a.Net.Addr() == ip })
		if len(c.Addresses) == before {
			return Change{}, nil, notFound("subnet not found")
		}
		return Change{Kind: ChangeSubnetDelete, IP: ip}, nil, nil
	})
}

// ChangeBalance adds to the balance of a customer, like an import of a payment
// from the billing; a negative amount is taken away.
func (e *Emulator) ChangeBalance(id, cents int64, comment string) error {
	return e.changeCustomer(id, false, func(c *Customer, now time.Time) (Change, []MACRecord, error) {
		err := e.moveMoney(c, Movement{At: now, Kind: movementPay, AmountCents: cents, Comment: comment})
		return Change{Kind: ChangeBalance}, nil, err
	})
}

// DeleteCustomer removes a customer with everything that belongs to it.
func (e *Emulator) DeleteCustomer(id int64) error { return e.deleteCustomer(id, false) }

func (e *Emulator) deleteCustomer(id int64, quiet bool) error {
	return e.change(quiet, func(time.Time) ([]edit, error) {
		c := e.customer(id)
		if c == nil {
			return nil, fmt.Errorf("customer %d: %w", id, ErrNotFound)
		}
		return []edit{{deleted: c, change: Change{Kind: ChangeDelete}}}, nil
	})
}

// merge moves what src has to dst and deletes src, in one transaction.
func (e *Emulator) merge(dst, src int64, quiet bool) error {
	return e.change(quiet, func(time.Time) ([]edit, error) {
		to, from := e.customer(dst), e.customer(src)
		if to == nil || from == nil {
			return nil, fmt.Errorf("customer: %w", ErrNotFound)
		}
		to = to.clone()
		to.join(from)
		return []edit{
			{deleted: from, change: Change{Kind: ChangeDelete}},
			{customer: to, history: e.MACHistory(src), change: Change{Kind: ChangeMerge}},
		}, nil
	})
}
