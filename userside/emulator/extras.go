package emulator

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// plainExtras is how many of the first customers have a bit of everything, so
// that whoever looks one of them up sees something.
const plainExtras = 50

// extras gives the customers services, marks, movements and messages. They are
// drawn from a generator of their own: the network of a seed stays what it was.
func (g *generator) extras(seed uint64) {
	x := &extras{rng: rand.New(rand.NewPCG(seed, 0x657874726173))}
	for i, c := range g.d.customers {
		x.account(c, i < plainExtras)
		if i < plainExtras || x.oneIn(10) {
			x.services(c)
		}
		if x.oneIn(8) {
			c.Marks = append(c.Marks, int64(1+x.rng.IntN(6)))
		}
		if i < plainExtras && i%2 == 0 || x.oneIn(25) {
			x.messages(c)
		}
		c.ActiveInternet = c.Active.Add(-time.Duration(x.rng.IntN(600)) * time.Second)
	}
}

type extras struct {
	rng                *rand.Rand
	movements, replies int64
}

func (x *extras) oneIn(n int) bool { return x.rng.IntN(n) == 0 }

// account makes a history that ends with the balance of the customer.
func (x *extras) account(c *Customer, always bool) {
	if !always && !x.oneIn(5) {
		return
	}
	n := 1 + x.rng.IntN(4)
	balance := c.BalanceCents
	moves := make([]Movement, n)
	at := generatedAt.Add(-time.Duration(x.rng.IntN(20*24)) * time.Hour)
	for i := n - 1; i >= 0; i-- {
		m := Movement{At: at, Kind: movementPay, AmountCents: int64(100 * (50 + x.rng.IntN(400))), Comment: "Оплата"}
		if x.oneIn(3) {
			m = Movement{At: at, Kind: movementChange, Employee: int64(1 + x.rng.IntN(5)), AmountCents: -int64(100 * x.rng.IntN(200)), Comment: "Перерахунок"}
		}
		balance -= m.AmountCents
		m.BeforeCents = balance
		moves[i] = m
		at = at.AddDate(0, 0, -20-x.rng.IntN(15))
	}
	for i := range moves {
		x.movements++
		moves[i].ID = x.movements
	}
	c.Movements = moves
}

func (x *extras) services(c *Customer) {
	all := services()
	s := all[x.rng.IntN(len(all))]
	c.Services = append(c.Services, Service{ID: s.id, PriceCents: s.cents, Added: c.Created.Add(24 * time.Hour)})
}

func (x *extras) messages(c *Customer) {
	at := generatedAt.Add(-time.Duration(1+x.rng.IntN(90*24)) * time.Hour)
	questions := []string{"Немає зв'язку", "Прошу змінити тариф", "Коли прийде майстер?", "Скільки я винен?"}
	x.replies++
	c.Messages = append(c.Messages, Message{ID: x.replies, At: at, Text: questions[x.rng.IntN(len(questions))]})
	c.ActiveCabinet = at
	if x.oneIn(2) {
		x.replies++
		c.Messages = append(c.Messages, Message{ID: x.replies, At: at.Add(time.Hour), ToCustomer: true, Employee: int64(1 + x.rng.IntN(5)),
			Text: fmt.Sprintf("Заявку № %d прийнято", x.replies)})
	}
}
