package userside

import (
	"context"
	"time"
)

// MessageFilter are the conditions of Messages, of which one is obligatory;
// servers before 3.16dev3 want the customer.
type MessageFilter struct {
	Customer int64
	From, To time.Time // servers from 3.14.53 on
	Employee int64
}

// Message is one row of Messages. Raw has it as it came.
type Message struct {
	ID       int64
	Time     time.Time
	Customer int64 // 0: not told
	Employee int64 // 0: none
	Type     String
	Text     String
	Raw      Map[any]
}

// Messages calls customer msg: messages from and to customers. API page section 3.1.
func (c *Client) Messages(ctx context.Context, filter MessageFilter) (*List[Message], error) {
	loc := c.opts.Location
	args := arguments{}.id("customer_id", filter.Customer).dateTime("date_add_from", filter.From, loc).
		dateTime("date_add_to", filter.To, loc).id("employee_id", filter.Employee)
	return readList(ctx, c, actMessages, args, func(r recordReader) (Message, bool) {
		m := Message{
			ID: r.id("Id", "id"), Time: r.time("DateMsg", "date_msg", "date_add", "date"), Customer: r.id("customer_id", "usercode"),
			Employee: r.id("employee_id", "empoyee_id", "operator_id", "OperID"), Type: r.string("MsgTyper", "msg_typer", "type"),
			Text: r.string("Text", "text"), Raw: objectOf(r.v),
		}
		return m, m.ID != 0 || m.Text != "" || !m.Time.IsZero()
	})
}

// NewMessage is what AddMessage and SendMessage write.
type NewMessage struct {
	Customer int64  // obligatory
	Text     string // obligatory
	Archived bool   // put it into the archive at once; newer servers
}

// AddMessage calls customer msg_add: a message from the customer. It gives the
// id of the message; 0 when the server does not tell it.
func (c *Client) AddMessage(ctx context.Context, m NewMessage) (int64, error) {
	return c.create(ctx, actMessageAdd, arguments{}.id("customer_id", m.Customer).text("text", m.Text).flag("is_arc", m.Archived))
}

// SendMessage calls customer msg_add_to_customer: a message from an employee to
// the customer. It gives the id of the message; 0 when the server does not tell it.
func (c *Client) SendMessage(ctx context.Context, employee int64, m NewMessage) (int64, error) {
	return c.create(ctx, actMessageSend, arguments{}.id("employee_id", employee).id("customer_id", m.Customer).
		text("text", m.Text).flag("is_arc", m.Archived))
}
