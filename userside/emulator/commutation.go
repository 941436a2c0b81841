package emulator

import (
	"cmp"
	"fmt"
	"slices"
)

// endpoint is the far end of a link.
type endpoint struct {
	kind    string // switch, customer or cross
	id      int64
	port    uint32
	connect int64 // connect_id
}

// patch returns what a customer's link number i is plugged into, and where the
// chain ends.
func patch(c *Customer, i int) (near, finish endpoint) {
	l := c.Links[i]
	connect := c.ID*10 + int64(i)
	finish = endpoint{"switch", l.Device, l.Port, connect}
	if l.Cross != 0 {
		return endpoint{"cross", l.Cross, 1, connect}, finish
	}
	return finish, finish
}

// getCommutation answers commutation get_data for customers and switches; of
// other objects it knows none (API page, section 5.1).
func getCommutation(e *Emulator, r *request) (answer, error) {
	id := int64(0)
	if r.has("object_id") {
		var err error
		if id, err = r.int("object_id"); err != nil {
			return answer{}, err
		}
	}
	finish := r.flag("is_finish_data")
	switch r.param("object_type") {
	case "customer":
		if id == 0 {
			return commutationOfAll(e, r, finish), nil
		}
		c := e.customer(id)
		if c == nil {
			c = &Customer{} // nothing plugged in: nothing more is known of this case
		}
		return data(func(enc *encoder) { enc.customerLinks(r, c, finish) }), nil
	case "switch":
		return commutationOfSwitches(e, r, id, finish), nil
	case "radio", "cross", "fiber", "splitter":
		return data(func(enc *encoder) { enc.list(func() {}) }), nil
	default:
		return answer{}, badRequest("parameter object_type: unknown type")
	}
}

func commutationOfAll(e *Emulator, r *request, finish bool) answer {
	all := e.bulk(r)
	return data(func(enc *encoder) {
		enc.keyed(false, func() {
			for _, c := range all {
				if len(c.Links) > 0 {
					enc.id(c.ID)
					enc.customerLinks(r, c, finish)
				}
			}
		})
	})
}

// customerLinks writes the links of a customer: a list, or with finish an
// object with numeric keys and the key finish.
func (e *encoder) customerLinks(r *request, c *Customer, finish bool) {
	if !finish {
		e.list(func() {
			for i := range c.Links {
				near, _ := patch(c, i)
				e.link(r, near)
			}
		})
		return
	}
	e.keyed(false, func() {
		for i := range c.Links {
			near, _ := patch(c, i)
			e.id(int64(i))
			e.link(r, near)
		}
		if len(c.Links) > 0 {
			_, end := patch(c, 0)
			e.key("finish")
			e.link(r, end)
		}
	})
}

func (e *encoder) link(r *request, p endpoint) {
	e.object(func() {
		e.strField("object_type", p.kind)
		e.intField("object_id", p.id)
		if !r.profile.old() && e.optional() {
			e.strField("object_uuid", fmt.Sprintf("%08x-0000-4000-8000-%012x", len(p.kind), p.id))
		}
		e.intField("direction", 0)
		e.intField("interface", int64(p.port))
		e.strField("comment", "")
		e.intField("connect_id", p.connect)
	})
}

// commutationOfSwitches answers for one switch, or for all keyed by their ids.
func commutationOfSwitches(e *Emulator, r *request, id int64, finish bool) answer {
	type plug struct {
		customer *Customer
		index    int
	}
	ports := map[int64]map[uint32][]plug{}
	for _, c := range e.bulk(r) {
		for i, l := range c.Links {
			if id != 0 && l.Device != id {
				continue
			}
			if ports[l.Device] == nil {
				ports[l.Device] = map[uint32][]plug{}
			}
			ports[l.Device][l.Port] = append(ports[l.Device][l.Port], plug{c, i})
		}
	}
	// The end of the chain from the switch is the customer.
	end := func(p plug) endpoint {
		near, _ := patch(p.customer, p.index)
		return endpoint{"customer", p.customer.ID, 1, near.connect}
	}
	write := func(enc *encoder, of map[uint32][]plug) {
		enc.keyed(false, func() {
			for _, port := range sortedKeys(of) {
				enc.id(int64(port))
				if finish {
					enc.object(func() { enc.key("finish"); enc.link(r, end(of[port][0])) })
					continue
				}
				enc.list(func() {
					for _, p := range of[port] {
						near, _ := patch(p.customer, p.index)
						if near.kind != "cross" {
							near = end(p)
						}
						enc.link(r, near)
					}
				})
			}
		})
	}
	return data(func(enc *encoder) {
		if id != 0 {
			write(enc, ports[id])
			return
		}
		enc.keyed(false, func() {
			for _, dev := range sortedKeys(ports) {
				enc.id(dev)
				write(enc, ports[dev])
			}
		})
	})
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K {
	out := make([]K, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// socket is a place that a cable can be plugged into.
type socket struct {
	kind      string // customer, switch or cross
	id        int64
	direction int64
	port      uint32
}

// getConnectList answers module get_connect_list: type, object, direction and
// interface as keys, and what is plugged in there. A cross has its customer in
// direction 0 and its switch in direction 1.
func getConnectList(e *Emulator, r *request) (answer, error) {
	only := r.param("object_type")
	if !slices.Contains([]string{"", "customer", "switch", "other"}, only) {
		return answer{}, badRequest("parameter object_type: unknown type")
	}
	id := int64(0)
	if r.has("object_id") {
		var err error
		if id, err = r.positive("object_id"); err != nil {
			return answer{}, err
		}
	}
	plugs := map[string]map[int64]map[int64]map[uint32][]socket{}
	plug := func(a, b socket) {
		kind := a.kind
		if kind == "cross" {
			kind = "other"
		}
		if only != "" && only != kind || id != 0 && id != a.id {
			return
		}
		byID := submap(plugs, a.kind)
		byPort := submap(submap(byID, a.id), a.direction)
		byPort[a.port] = append(byPort[a.port], b)
	}
	join := func(a, b socket) { plug(a, b); plug(b, a) }
	for _, c := range e.bulk(r) {
		for _, l := range c.Links {
			end, sw := socket{"customer", c.ID, 0, 1}, socket{"switch", l.Device, 0, l.Port}
			if l.Cross == 0 {
				join(end, sw)
				continue
			}
			join(end, socket{"cross", l.Cross, 0, 1})
			join(socket{"cross", l.Cross, 1, 1}, sw)
		}
	}
	return bare(func(enc *encoder) {
		levels(enc, plugs, enc.key, func(byID map[int64]map[int64]map[uint32][]socket) {
			levels(enc, byID, enc.id, func(byDirection map[int64]map[uint32][]socket) {
				levels(enc, byDirection, enc.id, func(byPort map[uint32][]socket) {
					levels(enc, byPort, func(p uint32) { enc.id(int64(p)) }, enc.sockets)
				})
			})
		})
	}), nil
}

// submap returns the map under k, which is made when it is missing.
func submap[K, L comparable, V any](m map[K]map[L]V, k K) map[L]V {
	if m[k] == nil {
		m[k] = map[L]V{}
	}
	return m[k]
}

// levels writes a map by its keys in their order.
func levels[K cmp.Ordered, V any](e *encoder, m map[K]V, key func(K), value func(V)) {
	e.keyed(false, func() {
		for _, k := range sortedKeys(m) {
			key(k)
			value(m[k])
		}
	})
}

func (e *encoder) sockets(list []socket) {
	e.list(func() {
		for _, s := range list {
			e.object(func() {
				e.strField("type", s.kind)
				e.intField("id", s.id)
				e.intField("direction", s.direction)
				e.intField("interface", int64(s.port))
			})
		}
	})
}
