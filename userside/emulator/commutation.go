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

// patch gives what a customer's link number i is plugged into, and where the
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
		if r.profile != ProfileLegacy && e.optional() {
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
