package emulator

import (
	"cmp"
	"slices"
	"time"
)

// getMessages answers msg: messages by customer, time or employee; at least one
// of them must be given, and before 3.16dev3 the customer.
func getMessages(e *Emulator, r *request) (answer, error) {
	customers, err := messageCustomers(e, r)
	if err != nil {
		return answer{}, err
	}
	from, to, err := messageTimes(r)
	if err != nil {
		return answer{}, err
	}
	employee, err := r.employee()
	if err != nil {
		return answer{}, err
	}
	var found []Message
	for _, c := range customers {
		for _, m := range c.Messages {
			if (from.IsZero() || !m.At.Before(from)) && (to.IsZero() || m.At.Before(to)) && (employee == 0 || m.Employee == employee) {
				found = append(found, m)
			}
		}
	}
	slices.SortFunc(found, func(a, b Message) int { return cmp.Compare(a.ID, b.ID) })
	return data(func(enc *encoder) {
		enc.list(func() {
			for _, m := range found {
				enc.object(func() { enc.message(r, m) })
			}
		})
	}), nil
}

// messageCustomers returns those whose messages are asked for.
func messageCustomers(e *Emulator, r *request) ([]*Customer, error) {
	if r.has("customer_id") {
		id, err := existing(e, r)
		if err != nil {
			return nil, err
		}
		return []*Customer{e.customer(id)}, nil
	}
	if r.before("3.16dev3") {
		return nil, badRequest("parameter %s is missing", r.wire("customer_id"))
	}
	if !r.has("date_add_from") && !r.has("date_add_to") && !r.has("employee_id") {
		return nil, badRequest("no condition given")
	}
	return e.customerList(), nil
}

// messageTimes reads the bounds: from on, and before to. A day as the end is
// meant with all its hours.
func messageTimes(r *request) (from, to time.Time, err error) {
	if r.has("date_add_from") {
		if from, _, err = r.time("date_add_from"); err != nil {
			return from, to, err
		}
	}
	if r.has("date_add_to") {
		var day bool
		if to, day, err = r.time("date_add_to"); err != nil {
			return from, to, err
		}
		if day {
			to = to.AddDate(0, 0, 1)
		} else {
			to = to.Add(time.Second)
		}
	}
	return from, to, nil
}

// message writes a row of msg. What MsgTyper says on real servers is not published.
func (e *encoder) message(r *request, m Message) {
	kind := "from_customer"
	if m.ToCustomer {
		kind = "to_customer"
	}
	e.intField("Id", m.ID)
	e.strField("DateMsg", r.date(m.At))
	e.intField(r.wire("employee_id"), m.Employee)
	e.strField("MsgTyper", kind)
	e.textField("Text", m.Text)
}

// messageFrom answers msg_add: a message of the customer, with its Id.
func messageFrom(e *Emulator, r *request) (answer, error) {
	archived := r.flag("is_arc") && !r.before(afterSeed)
	return addMessage(e, r, Message{Archived: archived, Text: r.text("text")})
}

// messageTo answers msg_add_to_customer like msg_add; nothing is published of
// its answer.
func messageTo(e *Emulator, r *request) (answer, error) {
	employee, err := r.positive("employee_id")
	if err != nil {
		return answer{}, err
	}
	return addMessage(e, r, Message{ToCustomer: true, Employee: employee, Archived: r.flag("is_arc"), Text: r.text("text")})
}

func addMessage(e *Emulator, r *request, m Message) (answer, error) {
	_, err := alter(e, r, "customer_id", ChangeMessage, func(c *Customer, now time.Time) error {
		e.lastMessage++
		m.ID, m.At = e.lastMessage, now
		c.Messages = newest(append(c.Messages, m))
		if !m.ToCustomer {
			c.ActiveCabinet = now // customers write in their personal area
		}
		return nil
	})
	if err != nil {
		return answer{}, err
	}
	return answer{body: func(enc *encoder) { enc.intField("Id", m.ID) }}, nil
}
