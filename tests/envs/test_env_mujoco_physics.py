import numpy as np
import pytest

from envs import ConfigError, EnvSpec, find_robot, make_env
from envs.spec import NOMINAL_MASS

mujoco = pytest.importorskip("mujoco")

ROBOTS = ("cheetah", "hopper", "walker", "ant")


def make(task, physics=""):
    robot = find_robot(make_env(EnvSpec(task, "mujoco", physics=physics), training=True))
    robot.reset(seed=0)
    return robot


def arrays(model):
    """Every number in the model, derived constants included."""
    names = [name for name in dir(model) if isinstance(getattr(model, name), np.ndarray)]
    return {name: np.array(getattr(model, name)) for name in names}


def in_the_air(robot):
    """At rest 5 m above the ground, joints as in the model: no contact."""
    physics = robot.physics
    mujoco.mj_resetData(physics.model, physics.data)
    physics.data.qpos[2 if robot.unwrapped.model.jnt_type[0] == 0 else 1] += 5
    mujoco.mj_forward(physics.model, physics.data)
    assert physics.data.ncon == 0
    return physics.model, physics.data


def acceleration_of_actuator(robot, actuator=0):
    """qacc [nv] for full throttle minus qacc for none, at rest in the air."""
    model, data = in_the_air(robot)
    idle = data.qacc.copy()
    data.ctrl[actuator] = 1
    mujoco.mj_forward(model, data)
    return data.qacc - idle


def inertia_matrix(model, data):
    """M [nv, nv] of M qacc = forces."""
    matrix = np.zeros((model.nv, model.nv))
    for row, unit in zip(matrix, np.eye(model.nv), strict=True):
        mujoco.mj_mulM(model, data, row, unit)
    return matrix


@pytest.mark.parametrize("task", ROBOTS)
def test_nominal_torso_mass(task):
    assert make(task).physics.read("torso_mass") == pytest.approx(
        NOMINAL_MASS[task, "mujoco"], rel=1e-4
    )


def test_mass_is_read_back_and_inertia_scales_with_it():
    robot = make("cheetah")
    model = robot.physics.model
    inertia, mass = model.body_inertia[1].copy(), model.body_mass[1]
    others = model.body_mass[2:].copy()
    robot.physics.set({"torso_mass": 9.0})
    assert robot.physics.read("torso_mass") == robot.physics.read("mass/torso") == 9.0
    np.testing.assert_allclose(model.body_inertia[1] / inertia, 9.0 / mass)
    np.testing.assert_array_equal(model.body_mass[2:], others)
    assert model.body_subtreemass[0] == pytest.approx(9.0 + others.sum())  # mj_setConst has run


def test_mass_changes_the_acceleration_as_predicted():
    """M(new) = M + (ratio - 1) * (m Jp'Jp + Jr'I Jr), J the torso's Jacobians, all nominal."""
    robot = make("cheetah")
    nominal = acceleration_of_actuator(robot)
    model, data = in_the_air(robot)
    matrix = inertia_matrix(model, data)
    moving, turning = np.zeros((3, model.nv)), np.zeros((3, model.nv))
    mujoco.mj_jacBodyCom(model, data, moving, turning, 1)
    axes = data.ximat[1].reshape(3, 3)
    inertia = axes @ np.diag(model.body_inertia[1]) @ axes.T
    torso = model.body_mass[1] * moving.T @ moving + turning.T @ inertia @ turning
    torque = np.zeros(model.nv)
    torque[3] = 120.0  # bthigh's gear [N m]
    np.testing.assert_allclose(np.linalg.solve(matrix, torque), nominal, rtol=1e-8)

    ratio = 9.0 / model.body_mass[1]
    robot.physics.set({"torso_mass": 9.0})
    predicted = np.linalg.solve(matrix + (ratio - 1) * torso, torque)
    np.testing.assert_allclose(acceleration_of_actuator(robot), predicted, rtol=1e-8)
    assert abs(predicted[0] / nominal[0]) < 0.8  # a heavier torso is pushed away less


def test_armature_damping_and_actuators_scale():
    robot = make("cheetah")
    model, data = in_the_air(robot)
    before = inertia_matrix(model, data)
    robot.physics.set({"armature": 3.0, "damping": 2.0, "actuator_strength": 0.5})
    model, data = in_the_air(robot)
    joints = [0, 0, 0] + 6 * [2 * 0.1]  # rotor inertia 0.1 kg m^2, none at the root
    np.testing.assert_allclose(inertia_matrix(model, data) - before, np.diag(joints), atol=1e-9)
    data.qvel[3], data.ctrl[0] = 0.5, 1.0
    mujoco.mj_forward(model, data)
    assert data.qfrc_damper[3] == pytest.approx(-2 * 6 * 0.5)  # bthigh's damping is 6 N m s/rad
    assert data.qfrc_actuator[3] == pytest.approx(0.5 * 120)


def test_friction_is_that_of_the_contacts():
    robot = make("cheetah", physics="friction=0.5")
    data = robot.physics.data
    for _ in range(50):
        robot.step(np.zeros(6, np.float32))
    assert data.ncon > 0
    assert data.contact.friction[0, 0] == pytest.approx(0.5 * 0.4)


@pytest.mark.parametrize("task", ROBOTS)
def test_floor_friction_is_the_floors_own(task):
    robot = make(task)
    nominal = robot.physics.model.geom_friction.copy()
    robot.physics.set({"floor_friction": 3.0})
    changed = np.argwhere(robot.physics.model.geom_friction != nominal)
    assert changed.tolist() == [[robot.physics.model.geom("floor").id, 0]]  # 0: sliding
    assert robot.physics.read("floor_friction") == 3.0
    assert robot.physics.read("friction") == 1.0  # of the robot's own


@pytest.mark.parametrize(("friction", "expected"), [(0.1, 2.0), (1.9, 2.0), (2.5, 2.5)])
def test_a_contact_takes_the_larger_friction(friction, expected):
    robot = make("hopper", physics=f"floor_friction={friction}")
    data = robot.physics.data
    for _ in range(20):
        robot.step(np.zeros(3, np.float32))
    assert data.ncon > 0
    assert data.contact.friction[0, 0] == expected  # the foot's own is 2.0


@pytest.mark.parametrize("task", ROBOTS)
def test_bare_mass_changes_the_mass_and_nothing_else(task):
    spec = EnvSpec(task, "mujoco", bare_mass=True)
    robot = find_robot(make_env(spec, training=False))
    robot.reset(seed=0)
    before = arrays(robot.physics.model)
    robot.reset(options={"physics": {"torso_mass": 2.0}})
    after = arrays(robot.physics.model)
    changed = [name for name in before if not np.array_equal(before[name], after[name])]
    assert changed == ["body_mass"]
    assert robot.physics.read("torso_mass") == 2.0


@pytest.mark.parametrize("task", ROBOTS)
def test_changes_never_compound(task):
    robot = make(task)
    before = arrays(robot.physics.model)
    values = {"torso_mass": 1.0, "friction": 0.5, "slope": 5.0, "head_wind": 4.0}
    values |= {"damping": 2.0, "armature": 2.0, "actuator_strength": 0.7}
    robot.reset(options={"physics": values})
    once = arrays(robot.physics.model)
    for _ in range(3):
        robot.reset(options={"physics": values | {"friction": 0.6}})
        robot.reset(options={"physics": values})
    read = robot.physics.read_all()
    assert {name: read[name] for name in values} == pytest.approx(values)
    for name, array in arrays(robot.physics.model).items():
        np.testing.assert_array_equal(array, once[name], err_msg=name)
    robot.reset()
    for name, array in arrays(robot.physics.model).items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)


@pytest.mark.parametrize("task", ROBOTS)
@pytest.mark.parametrize("slope", [10.0, -10.0])
def test_slope_pulls_back_what_climbs(task, slope):
    robot = make(task, physics=f"slope={slope}")
    model, data = in_the_air(robot)
    assert robot.physics.read("slope") == pytest.approx(slope)
    start = float(data.subtree_com[1][0])
    for _ in range(10):
        mujoco.mj_step(model, data)
    time = 10 * model.opt.timestep
    mujoco.mj_forward(model, data)
    mujoco.mj_subtreeVel(model, data)
    speed = data.subtree_linvel[1]
    assert speed[0] == pytest.approx(-9.81 * np.sin(np.radians(slope)) * time, rel=0.01)
    assert speed[2] == pytest.approx(-9.81 * np.cos(np.radians(slope)) * time, rel=0.01)
    assert np.sign(data.subtree_com[1][0] - start) == -np.sign(slope)


@pytest.mark.parametrize("task", ROBOTS)
def test_head_wind_pushes_back_with_the_square_of_its_speed(task):
    robot, forces = make(task), []
    for wind in (0.0, 10.0, 20.0):
        robot.physics.set({"head_wind": wind})
        assert robot.physics.read("head_wind") == wind
        _, data = in_the_air(robot)
        forces.append(data.qfrc_fluid[0])
    assert forces[0] == 0
    assert forces[2] < forces[1] < 0
    assert forces[2] / forces[1] == pytest.approx(4, rel=0.02)  # viscosity adds a linear bit


def test_frictionless_feet_slide_down_the_slope():
    still = np.zeros(8, np.float32)
    end = []
    for friction in (1.0, 0.0):
        robot = make("ant", physics=f"slope=20,friction={friction}")
        for _ in range(60):
            robot.step(still)
        end.append(robot.physics.data.qpos[0])
    assert end[1] < end[0] - 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"torso_mas": 1.0}, "did you mean 'torso_mass'"),
        ({"mass/torsoo": 1.0}, "did you mean 'mass/torso'"),
        ({"torso_mass": 0.0}, "positive"),
        ({"mass/bfoot": -1.0}, "positive"),
        ({"torso_mass": float("inf")}, "finite"),
        ({"torso_mass": "heavy"}, "must be a number"),
        ({"friction": -0.1}, ">= 0"),
        ({"slope": 90.0}, "between"),
        ({"torso_mass": 5.0, "mass/torso": 5.0}, "same body"),
    ],
)
def test_bad_values_are_refused_and_change_nothing(values, message):
    physics = make("cheetah").physics
    before = physics.read_all()
    with pytest.raises(ConfigError, match=message):
        physics.set({"friction": 0.5} | values)
    assert physics.read_all() == before
    with pytest.raises(ConfigError, match="unknown"):
        physics.read("torso_mas")


def test_any_named_body():
    robot = make("hopper", physics="mass/foot=2.5")
    assert robot.physics.read("mass/foot") == 2.5
    assert "mass/leg" in robot.physics.names
