package userside

import (
	"bytes"
	"context"
	"net/url"
	"strconv"
)

// Link is one end of a connection in the ERP's commutation (API page section 5.1).
type Link struct {
	ObjectType string // switch, customer, fiber, cross, splitter, radio
	ObjectID   int64
	ObjectUUID string // newer servers
	Direction  int64
	Port       uint32 // interface: port number of the far object, not its ifIndex; 0: none
	PortName   string // set when interface is no number
	Comment    String
	ConnectID  int64
}

// CustomerLinks are the links of one customer.
type CustomerLinks struct {
	Customer int64
	Links    []Link
}

// Commutation is the answer of Commutation.
type Commutation struct {
	Customers []CustomerLinks
	Defects   Defects
}

// CustomerCommutation calls commutation get_data with object_type=customer and
// no id: the links of all customers in one answer (API page section 5.1).
func (c *Client) CustomerCommutation(ctx context.Context) (*Commutation, error) {
	out := &Commutation{}
	args := url.Values{"object_type": {"customer"}}
	unreadable := 0
	counts := false // the keys do: there is no customer 0
	to := sink{
		reset: func() { *out, unreadable, counts = Commutation{}, 0, false },
		member: func(key []byte, index int, v value) {
			at := &place{key: key, index: index}
			id := int64(index) // PHP makes a list of keys 0..n
			if key != nil {
				n, ok := parseInt(key)
				if !ok {
					unreadable++
					out.Defects.add(at.String(), "key is no customer id")
					return
				}
				id = n
			}
			counts = counts || id == 0 && !v.empty()
			if id <= 0 || counts {
				if !v.empty() {
					unreadable++
					out.Defects.add(at.String(), "key is no customer id")
				}
				return
			}
			if links := readLinks(v, at, &out.Defects); len(links) > 0 {
				out.Customers = append(out.Customers, CustomerLinks{Customer: id, Links: links})
			}
		},
	}
	a, err := c.call(ctx, actCommutationGetData, args, to)
	if err != nil {
		return nil, err
	}
	if len(out.Customers) == 0 && unreadable > 0 {
		return nil, c.unknownShape(actCommutationGetData, a, "no customer's links can be recognised")
	}
	return out, nil
}

// Chain is where the cabling of one customer leads.
type Chain struct {
	Links   []Link
	Finish  *Link // the far end, behind splices and splitters; nil when the chain ends nowhere
	Defects Defects
}

// CustomerChain calls commutation get_data for one customer with
// is_finish_data=1, which follows fibre to the switch or OLT (API page section 5.1).
func (c *Client) CustomerChain(ctx context.Context, customer int64) (*Chain, error) {
	if customer <= 0 {
		return nil, c.argument(actCommutationGetData, "customer id must be positive")
	}
	out := &Chain{}
	args := url.Values{"object_type": {"customer"}, "object_id": {strconv.FormatInt(customer, 10)}, "is_finish_data": {"1"}}
	to := sink{
		reset: func() { *out = Chain{} },
		whole: func(v value) {
			out.Links = readLinks(v, nil, &out.Defects)
			finish := v.get("finish")
			if finish.kind() == kindAbsent {
				// Keyed by port, with the end inside: take the first.
				for m := range v.all {
					if f := m.get("finish"); f.kind() != kindAbsent && finish.kind() == kindAbsent {
						finish = f
					}
				}
			}
			if ends := readLinks(finish, &place{key: []byte("finish")}, &out.Defects); len(ends) > 0 {
				out.Finish = &ends[0]
			}
		},
	}
	if _, err := c.call(ctx, actCommutationGetData, args, to); err != nil {
		return nil, err
	}
	return out, nil
}

// readLinks reads a list of links, an object with numeric keys of them, or one
// link. The member finish is not a link of the customer itself.
func readLinks(v value, at *place, defects *Defects) []Link {
	if v.kind() == kindObject && v.get("object_type").kind() != kindAbsent {
		if l, ok := readLink(v, at, defects); ok {
			return []Link{l}
		}
		return nil
	}
	var out []Link
	i := 0
	for m := range v.all {
		where := &place{up: at, index: i}
		i++
		if v.kind() == kindObject {
			where.key = m.key()
			if string(m.key()) == "finish" {
				continue
			}
		}
		switch {
		case m.kind() == kindObject && m.get("object_type").kind() == kindAbsent && m.get("finish").kind() != kindAbsent:
			// port -> {"finish": ...}: read by the caller
		case m.kind() == kindObject && m.get("object_id").kind() != kindAbsent:
			if l, ok := readLink(m, where, defects); ok {
				out = append(out, l)
			}
		case m.kind() == kindArray:
			out = append(out, readLinks(m, where, defects)...)
		case !m.empty():
			defects.add(where.String(), "link without object_id")
		}
	}
	return out
}

func readLink(v value, at *place, defects *Defects) (Link, bool) {
	id, err := v.get("object_id").int()
	if err != nil {
		defects.add(at.String()+".object_id", err.Error())
		return Link{}, false
	}
	l := Link{ObjectType: v.get("object_type").text(), ObjectID: id.Value, ObjectUUID: v.get("object_uuid").text()}
	// What is not essential may be odd without losing the link.
	direction, _ := v.get("direction").int()
	connect, _ := v.get("connect_id").int()
	l.Direction, l.ConnectID = direction.Value, connect.Value
	l.Comment, _ = v.get("comment").string()
	port := v.get("interface")
	if b := bytes.TrimSpace(port.bytes()); len(b) > 0 {
		switch n, ok := parseInt(b); {
		case ok && n >= 0 && n <= 1<<31:
			l.Port = uint32(n)
		case ok:
			defects.add(at.String()+".interface", port.mismatch("a port number").Error())
		default:
			l.PortName = String(port.text()).Text()
		}
	}
	return l, true
}

// CommutationFilter says what CommutationOf asks for.
type CommutationFilter struct {
	ObjectType string // obligatory: customer, switch, radio, cross, fiber or splitter
	ObjectID   int64  // 0: every object of the type
	Finish     bool   // tell the far end of each chain
}

// ObjectLinks are the links of one object, or of one port of it.
type ObjectLinks struct {
	Key    String // id of the object without CommutationFilter.ObjectID; its port with; "": of the object as a whole
	Links  []Link
	Finish *Link // with CommutationFilter.Finish; nil: the chain ends nowhere
}

// CommutationOf calls commutation get_data for objects of any type: those of
// customers, the ports of a switch. CustomerCommutation and CustomerChain are
// the shorter forms for customers. API page section 5.1.
func (c *Client) CommutationOf(ctx context.Context, filter CommutationFilter) (*List[ObjectLinks], error) {
	out := &List[ObjectLinks]{}
	args := arguments{}.text("object_type", filter.ObjectType).id("object_id", filter.ObjectID).flag("is_finish_data", filter.Finish)
	to := sink{
		reset: func() { *out = List[ObjectLinks]{} },
		whole: func(v value) {
			if filter.ObjectID != 0 && !keyedByPort(v) {
				addLinks(out, "", v, nil)
				return
			}
			for m := range v.all {
				at := &place{key: m.key()}
				addLinks(out, String(m.key()), m, at)
			}
		},
	}
	a, err := c.call(ctx, actCommutationGetData, args.values(), to)
	if err != nil {
		return nil, err
	}
	if len(out.Rows) == 0 && out.Defects.Count > 0 {
		return nil, c.unknownShape(actCommutationGetData, a, "no links can be recognised")
	}
	return out, nil
}

// keyedByPort tells port -> links from the links of one object, which may have
// numeric keys, too, beside their finish.
func keyedByPort(v value) bool {
	if v.kind() != kindObject {
		return false
	}
	for m := range v.all {
		if string(m.key()) == "finish" {
			continue
		}
		if m.kind() == kindArray || m.kind() == kindObject && m.get("object_type").kind() == kindAbsent {
			return true
		}
	}
	return false
}

func addLinks(l *List[ObjectLinks], key String, v value, at *place) {
	row := ObjectLinks{Key: key, Links: readLinks(v, at, &l.Defects)}
	if ends := readLinks(v.get("finish"), at, &l.Defects); len(ends) > 0 {
		row.Finish = &ends[0]
	}
	if len(row.Links) > 0 || row.Finish != nil {
		l.Rows = append(l.Rows, row)
	}
}
