package emulator

import (
	"cmp"
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// ipMAC writes ip_mac: keyed by the decimal address; entries without one, and
// subnets, by a counter.
func (e *encoder) ipMAC(c *Customer) {
	e.keyed(true, func() {
		n := int64(0)
		for _, a := range c.Addresses {
			if a.IP.IsValid() {
				e.id(int64(ipNumber(a.IP)))
			} else {
				e.id(n)
				n++
			}
			e.object(func() {
				e.decimalField("ip", int64(ipNumber(cmp.Or(a.IP, a.Net.Addr()))))
				e.strField("mac", a.MAC.hex())
				if a.Net.IsValid() {
					e.strField("ip_net", a.Net.String())
				}
			})
		}
	})
}

// getMACHistory answers get_mac_history. The rows are published nowhere: modern
// ones are {date, ip, mac}, legacy ones have the columns of the old table.
func getMACHistory(e *Emulator, r *request) (answer, error) {
	id, err := existing(e, r)
	if err != nil {
		return answer{}, err
	}
	date, ip := "date", "ip"
	if r.profile.old() {
		date, ip = "datestop", "userip"
	}
	recs := e.MACHistory(id)
	return data(func(enc *encoder) {
		enc.list(func() {
			for _, rec := range slices.Backward(recs) {
				enc.object(func() {
					enc.strField(date, r.date(rec.At))
					enc.decimalField(ip, int64(ipNumber(rec.IP)))
					enc.strField("mac", rec.MAC.hex())
				})
			}
		})
	}), nil
}

// setMACByIP answers set_mac_by_ip. An address that nobody has is refused; the
// documentation says nothing of the case.
func setMACByIP(e *Emulator, r *request) (answer, error) {
	ip, err := dotted(r, "ip")
	if err != nil {
		return answer{}, err
	}
	mac, err := colons(r)
	if err != nil {
		return answer{}, err
	}
	return answer{}, e.setIPMAC(ip, mac, quiet(r))
}

// ipAdd answers ip_add.
func ipAdd(e *Emulator, r *request) (answer, error) {
	id, err := existing(e, r)
	if err != nil {
		return answer{}, err
	}
	ip, err := dotted(r, "value")
	if err != nil {
		return answer{}, err
	}
	var mac MAC
	if r.has("mac") && !r.before("3.17.36") {
		if mac, err = colons(r); err != nil {
			return answer{}, err
		}
	}
	return answer{}, e.addIP(id, ip, mac, quiet(r))
}

// ipDelete answers ip_delete: an address, -1 for the entries with only a MAC, or all.
// Subnets have an action of their own and stay.
func ipDelete(e *Emulator, r *request) (answer, error) {
	id, err := existing(e, r)
	if err != nil {
		return answer{}, err
	}
	var match func(Address) bool
	bulk := true
	switch value := r.param("value"); {
	case value == "-1":
		match = func(a Address) bool { return !a.IP.IsValid() && !a.Net.IsValid() }
	case value == "all" && !r.before("3.19beta1"):
		match = func(a Address) bool { return !a.Net.IsValid() }
	default:
		ip, err := dotted(r, "value")
		if err != nil {
			return answer{}, err
		}
		bulk = false
		match = func(a Address) bool { return a.IP == ip }
	}
	err = e.removeIPs(id, quiet(r), match)
	if bulk && errors.Is(err, ErrNotFound) {
		return answer{}, nil // nothing to delete is no mistake here
	}
	return answer{}, err
}

func dotted(r *request, name string) (netip.Addr, error) {
	ip, err := netip.ParseAddr(r.param(name))
	if err != nil || !ip.Is4() || ip.IsUnspecified() {
		return netip.Addr{}, badRequest("parameter %s: not a dotted IPv4 address", name)
	}
	return ip, nil
}

func colons(r *request) (MAC, error) {
	mac, err := ParseMAC(r.param("mac"))
	if err != nil || mac.IsZero() {
		return MAC{}, badRequest("parameter mac: want the form 00:11:22:33:44:55")
	}
	return mac, nil
}

// ipSubnetAdd answers ip_subnet_add: a subnet by its first address and the
// length of its prefix, which may come as a mask too.
func ipSubnetAdd(e *Emulator, r *request) (answer, error) {
	id, err := existing(e, r)
	if err != nil {
		return answer{}, err
	}
	ip, err := dotted(r, "ip")
	if err != nil {
		return answer{}, err
	}
	bits, ok := prefixLen(r.param("subnet"))
	if !ok {
		return answer{}, badRequest("parameter subnet: want the length of a prefix, 0 to 32, or a mask")
	}
	p := netip.PrefixFrom(ip, bits)
	if p != p.Masked() {
		return answer{}, badRequest("parameter ip: not the first address of the subnet")
	}
	return answer{}, e.addSubnet(id, p, quiet(r))
}

func prefixLen(s string) (int, bool) {
	if n, err := strconv.Atoi(strings.TrimPrefix(s, "/")); err == nil {
		return n, n >= 0 && n <= 32
	}
	ip, err := netip.ParseAddr(s)
	if err != nil || !ip.Is4() {
		return 0, false
	}
	mask := ipNumber(ip)
	for bits := 0; bits <= 32; bits++ {
		if uint64(mask) == uint64(0xffffffff)<<(32-bits)&0xffffffff {
			return bits, true
		}
	}
	return 0, false
}

// ipSubnetDelete answers ip_subnet_delete: the subnets that begin with ip.
func ipSubnetDelete(e *Emulator, r *request) (answer, error) {
	id, err := existing(e, r)
	if err != nil {
		return answer{}, err
	}
	ip, err := dotted(r, "ip")
	if err != nil {
		return answer{}, err
	}
	return answer{}, e.removeSubnet(id, ip, quiet(r))
}
