"""Right strategies, of which wrong ones are made."""

from __future__ import annotations


class Ring:
    """Each agent learns from the one before it."""

    def __init__(self, agents, weight=0.5):
        self.agents, self.weight = agents, weight

    def draw(self, canvas):
        names = canvas.learners(self.agents, "agents")
        canvas.labels(names, 1 - self.weight)
        for place, name in enumerate(names):
            canvas.flow(names[place - 1], name, objective="kl", weight=self.weight, stream="train")


class Council:
    """Students learn from the mean of teachers, and from each teacher a little."""

    def __init__(self, teachers, students):
        self.teachers, self.students = teachers, students

    def draw(self, canvas):
        teachers = canvas.names(self.teachers, "teachers")
        students = canvas.learners(self.students, "students")
        canvas.labels(students, 0.5)
        node = canvas.consensus("council", "mean")
        canvas.flow(teachers, node, stream="train")
        for student in students:
            canvas.flow(node, student, objective="kl", weight=0.4)
            for teacher in teachers:
                canvas.flow(teacher, student, objective="mse", weight=0.1, stream="train")
