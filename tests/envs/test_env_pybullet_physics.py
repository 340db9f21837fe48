import numpy as np
import pytest

from envs import ConfigError, EnvSpec, find_robot, make_env
from envs.physics import AIR_DENSITY
from envs.spec import NOMINAL_MASS

pytest.importorskip("pybullet_envs_gymnasium")

ROBOTS = ("cheetah", "hopper", "walker", "ant")
STEP = 0.0165  # [s]


@pytest.fixture
def make():
    made = []

    def make(task, physics=""):
        made.append(make_env(EnvSpec(task, "pybullet", physics=physics), training=True))
        made[-1].reset(seed=0)
        return find_robot(made[-1])

    yield make
    for env in made:
        env.close()


def links(robot):
    client, body = robot.unwrapped._p, robot.unwrapped.robot.objects[0]
    return client, body, range(-1, client.getNumJoints(body))


def dynamics(robot):
    client, body, all_links = links(robot)
    return [client.getDynamicsInfo(body, link) for link in all_links]


def lift(robot):
    """5 m up, away from every contact."""
    client, body, all_links = links(robot)
    if robot.physics.read("torso_mass") == dynamics(robot)[0][0]:  # the torso is the base
        client.resetBasePositionAndOrientation(body, (0, 0, 5), (0, 0, 0, 1))
    else:
        slide = [
            i for i in all_links[1:] if client.getJointInfo(body, i)[1] in (b"ignorez", b"ignore2")
        ]
        client.resetJointState(body, slide[0], 5.0, 0.0)


def momentum(robot):
    """[3] of all links, kg m/s."""
    client, body, all_links = links(robot)
    total = np.multiply(client.getDynamicsInfo(body, -1)[0], client.getBaseVelocity(body)[0])
    for link in all_links[1:]:
        state = client.getLinkState(body, link, computeLinkVelocity=1, computeForwardKinematics=1)
        total = total + client.getDynamicsInfo(body, link)[0] * np.array(state[6])
    return total


@pytest.mark.parametrize("task", ROBOTS)
def test_nominal_torso_mass(task, make):
    mass = make(task).physics.read("torso_mass")
    assert mass == pytest.approx(NOMINAL_MASS[task, "pybullet"], rel=1e-4)


@pytest.mark.parametrize("task", ROBOTS)
def test_every_bodys_mass_is_read_back_and_its_inertia_scales(task, make):
    robot = make(task)
    before = dynamics(robot)
    masses = {name: 2 * value for name, value in robot.physics.read_all().items() if "/" in name}
    robot.physics.set(masses)
    read = robot.physics.read_all()
    assert {name: read[name] for name in masses} == pytest.approx(masses)
    for old, new in zip(before, dynamics(robot), strict=True):
        assert new[0] == pytest.approx(2 * old[0])
        np.testing.assert_allclose(new[2], np.multiply(2, old[2]))


@pytest.mark.parametrize("task", ["cheetah", "ant"])
def test_changes_never_compound(task, make):
    robot = make(task)
    before = dynamics(robot)
    values = {"torso_mass": 5.0, "friction": 0.5, "slope": 5.0, "head_wind": 4.0}
    values |= {"actuator_strength": 0.7}
    for _ in range(3):
        robot.reset(options={"physics": values})
        read = robot.physics.read_all()
        assert {name: read[name] for name in values} == pytest.approx(values)
    robot.reset()
    assert dynamics(robot) == before
    nominal = {"friction": 1.0, "slope": 0.0, "head_wind": 0.0, "actuator_strength": 1.0}
    assert robot.physics.read_all().items() >= nominal.items()


@pytest.mark.parametrize("task", ROBOTS)
@pytest.mark.parametrize("slope", [10.0, -10.0])
def test_slope_pulls_back_what_climbs(task, slope, make):
    robot = make(task, physics=f"slope={slope}")
    total = sum(link[0] for link in dynamics(robot))
    lift(robot)
    for _ in range(5):
        robot.unwrapped.scene.global_step()
    # Joint motors act inside the robot: only gravity moves its centre of mass.
    speed = momentum(robot) / total
    assert speed[0] == pytest.approx(-9.8 * np.sin(np.radians(slope)) * 5 * STEP, rel=0.02)
    assert speed[2] == pytest.approx(-9.8 * np.cos(np.radians(slope)) * 5 * STEP, rel=0.02)


@pytest.mark.parametrize("task", ROBOTS)
@pytest.mark.parametrize("torso_mass", [5.0, 10.0])
def test_head_wind_pushes_back_as_predicted(task, torso_mass, make):
    """After one step the momentum is force times time, whatever the mass."""
    robot = make(task, physics=f"torso_mass={torso_mass},head_wind=10")
    lift(robot)
    robot.physics.before_step()
    robot.unwrapped.scene.global_step()
    force = -0.5 * AIR_DENSITY * robot.physics.frontal_area * 10**2
    assert momentum(robot)[0] == pytest.approx(force * STEP, rel=0.02)


def test_actuator_strength_scales_the_torque(make):
    """From rest in free fall, the joint's speed after one step is proportional to its torque."""
    speeds = []
    for strength in (1.0, 0.5, 0.0):
        robot = make("cheetah", physics=f"actuator_strength={strength}")
        client, body, _ = links(robot)
        lift(robot)
        robot.step(np.array([0.1, 0, 0, 0, 0, 0], np.float32))
        thigh = robot.unwrapped.robot.jdict["bthigh"].jointIndex
        speeds.append(client.getJointState(body, thigh)[1])
    assert speeds[0] > 0.1
    assert speeds[1] / speeds[0] == pytest.approx(0.5, rel=0.01)
    assert speeds[2] == pytest.approx(0, abs=0.01 * speeds[0])


def test_frictionless_feet_slide_down_the_slope(make):
    still, end = np.zeros(8, np.float32), []
    for friction in (1.0, 0.0):
        robot = make("ant", physics=f"slope=20,friction={friction}")
        for _ in range(60):
            robot.step(still)
        end.append(robot.unwrapped.robot.body_real_xyz[0])
    assert end[1] < end[0] - 1


def test_what_bullet_cannot_do_is_refused(make):
    physics = make("cheetah").physics
    for name in ("damping", "armature"):
        with pytest.raises(ConfigError, match=f"'{name}'.*known: .*friction.*torso_mass"):
            physics.set({name: 2.0})
    before = physics.read_all()
    with pytest.raises(ConfigError, match="positive"):
        physics.set({"friction": 0.5, "torso_mass": -1.0})
    assert physics.read_all() == before


def test_endings(make):
    """Hopper, walker and ant end by falling; the cheetah by its time limit alone."""
    for task in ("hopper", "walker"):
        robot = make(task)
        ended = [robot.step(robot.action_space.sample())[2] for _ in range(60)]
        assert any(ended)
    cheetah = make_env(EnvSpec("cheetah", "pybullet"), training=False)
    cheetah.reset(seed=0)
    cheetah.action_space.seed(0)
    steps = [cheetah.step(cheetah.action_space.sample()) for _ in range(1000)]
    assert not any(terminated for _, _, terminated, _, _ in steps)
    assert [truncated for _, _, _, truncated, _ in steps] == 999 * [False] + [True]
    cheetah.close()
